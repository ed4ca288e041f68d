"""`make gpu` on a CPU: the same program in small sizes, which a GPU runs in full."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from noiseless.objective import kernels

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
        with pytest.raises(SystemExit) as end:
            gpu.main()
        return end.value.code

    return call


def test_all_parts_pass_on_a_cpu(program, tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert program("--device", "cpu", "--tiny", "--out", str(out)) == 0
    report = json.loads(out.read_text())
    assert report["verdict"] == "All 8 parts passed."
    assert report["machine"]["device"] == "cpu"
    assert report["parts"]["nothing waits for the device"]["passed"] is None  # which a CPU does not say
    rates = report["parts"]["images per second, resnet2, block 16, bfloat16"]
    assert rates["penalised, plain loop"] > 0
    assert "Written to" in capsys.readouterr().out


def test_what_fails_or_has_no_time_is_in_the_verdict(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu
    import gpuchecks

    right = kernels.deposit
    monkeypatch.setattr(kernels, "deposit", lambda bins, terms, *more: right(bins, 2 * terms, *more))
    parts = {"exact sum": gpu.performed(lambda: gpuchecks.sums(torch.device("cpu"), True), float("inf"))}
    assert parts["exact sum"]["passed"] is False
    parts["broken"] = gpu.performed(lambda: 1 / 0, float("inf"))
    assert "ZeroDivisionError" in parts["broken"]["error"]
    parts["late"] = gpu.performed(lambda: {"passed": True}, 0.0)
    assert "--minutes" in parts["late"]["why"]
    assert gpu.verdict(parts) == "Failed: exact sum, broken."


@pytest.mark.skipif(torch.cuda.is_available(), reason="here there is a GPU")
def test_without_a_gpu_it_says_so(program, capsys):
    assert program() == 0
    assert "no GPU here" in capsys.readouterr().out
