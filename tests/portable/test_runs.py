"""Portable runs: one digest for any threads, chunk, instruction set and workers; what is refused before the start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from decimal import Decimal, localcontext
from pathlib import Path

import pytest
import torch
from small_runs import call, npz, refused, small_recipe

from noiseless.ask import published
from noiseless.files.checkpoint import digest
from noiseless.optim import make_optimizer
from noiseless.portable import arithmetic
from noiseless.portable.powers import portable_powers
from noiseless.portable.published import PUBLISHED
from noiseless.recipes.config import Config, Settings
from noiseless.run.build import build
from noiseless.run.train import train

ROOT = Path(__file__).parents[2]
ISAS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
DERIVATIVES = [name for name in published.cases() if "Hessian product" in name]
PROGRAM = """
import sys, torch
from noiseless.ask import published
torch.set_num_threads(int(sys.argv[1]))
for name, compute in published.cases(int(sys.argv[2])).items():
    if "all" in sys.argv or "Hessian product" in name:
        print(compute(), name)
"""


def _elsewhere(isa: str, threads: int, chunk: int, *which: str) -> dict[str, str]:
    """The published cases, computed in a process that is held to an instruction set."""
    command = [sys.executable, "-c", PROGRAM, str(threads), str(chunk), *which]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"} | ISAS.get(isa, {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {name: sha256 for sha256, _, name in (line.partition(" ") for line in done.stdout.splitlines())}


def _trained(data: str, threads: int, chunk: int, **flags) -> tuple[str, list[str]]:
    """Digest of the parameters after three steps, and the messages."""
    before = torch.get_num_threads()
    try:
        recipe = small_recipe(data, **({"portable": True} | flags))
        experiment = build(Config(recipe, Settings(threads=threads, chunk=chunk, checkpoint_seconds=1e9)))
        train(experiment, None)
    finally:
        torch.set_num_threads(before)
    return digest(dict(experiment.model.state_dict())), list(experiment.notes)


def test_threads_and_chunk_change_no_bit_of_a_run(tmp_path):
    data = npz(tmp_path / "data.npz")
    first, _ = _trained(data, 1, 1)
    assert _trained(data, 2, 3)[0] == first
    assert _trained(data, 1, 1, portable=False)[0] != first  # the flag does something


def test_published_derivatives_are_computed_here():
    for name in DERIVATIVES:
        assert published.cases()[name]() == PUBLISHED[name]


def test_published_derivatives_without_vectors_and_fused_operations():
    # a process of some 6 s, because an instruction set is chosen when torch is loaded
    assert _elsewhere("default", 2, 1) == {name: PUBLISHED[name] for name in DERIVATIVES}


@pytest.mark.soak
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("chunk", [1, 4, 16])
@pytest.mark.parametrize("isa", ["avx512", *ISAS])
def test_all_published_digests(isa, threads, chunk):
    assert _elsewhere(isa, threads, chunk, "all") == PUBLISHED


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_no_bit(tmp_path, workers):
    data, digests = npz(tmp_path / "data.npz"), set()
    for name, flags in {"alone": (), "job": ("--workers", workers, "--chunk", 1)}.items():
        place = tmp_path / name
        answer = call(
            "train",
            "fb-practice",
            "--portable",
            "--data",
            data,
            "--steps",
            2,
            "--block",
            16,
            "--run-dir",
            place,
            *flags,
        )
        assert answer.code == 0, answer
        digests.add(call("digest", place).out)
    assert len(digests) == 1


def test_verify_published(monkeypatch):
    monkeypatch.setattr(published, "RUNS", {})  # leaves the derivatives
    answer = call("verify", "--published")
    assert answer.code == 0, answer
    assert "all equal" in answer.out
    monkeypatch.setattr(published, "PUBLISHED", {**PUBLISHED, DERIVATIVES[0]: "0" * 64})
    answer = call("verify", "--published")
    assert answer.code == 5
    assert "DIFFERENT" in answer.out
    refused("verify", "--published", "run", names=("--published", "run"))


def test_the_page_has_the_published_digests():
    page = (ROOT / "docs" / "portable.md").read_text()
    assert dict(re.findall(r"\| ([^|]+) \| `([0-9a-f]{64})` \|", page)) == PUBLISHED
    assert PUBLISHED.keys() == published.cases().keys()


def test_the_committed_measurement_has_one_digest_for_portable_operations():
    files = list((ROOT / "benchmarks" / "results" / "portability").glob("*.json"))
    assert files
    for file in files:
        result = json.loads(file.read_text())
        assert sum(key.startswith("portable") for key in result["digests"]) > 200
        assert "False" not in [value for key, value in result["digests"].items() if key.startswith("portable")]
        for name, keys in result["different"].items():
            assert [key for key in keys if key.startswith("portable")] == [], name
        assert file.stem.startswith("qemu") or result["different"]["all default"]  # of torch's own


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("--compile", "on"), ("--compile on", "--compile off")),
        (("--autocast", "bfloat16"), ("--autocast bfloat16",)),
        (("--optimizer", "RMSprop"), ("RMSprop", "AdamW")),
        (("--optimizer", "FISTA"), ("FISTA",)),
        (("--line-search", "armijo"), ("--line-search armijo",)),
        (("--policy", "trivial"), ("--policy trivial",)),
        (("--pixels", "10"), ("--pixels",)),
    ],
)
def test_what_is_not_portable_is_refused_by_name(tmp_path, flags, names):
    place = tmp_path / "run"
    refused("train", "fb", "--data", npz(tmp_path / "d.npz"), "--portable", "--run-dir", place, *flags, names=names)
    assert not place.exists()


def test_a_model_with_an_unknown_operation_is_refused_before_the_start(tmp_path, monkeypatch):
    (tmp_path / "strange.py").write_text(
        "import torch\n"
        "class Strange(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(torch.lgamma(x.flatten(1).abs() + 1))\n"
        "def model(channels, classes):\n"
        "    return Strange(channels * 64, classes)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    place = tmp_path / "run"
    refused(
        "train", "fb", "--data", npz(tmp_path / "d.npz"), "--block", 16, "--model", "strange:model", "--portable",
        "--run-dir", place, names=("lgamma", "--portable"),
    )  # fmt: skip
    assert not place.exists()


def test_powers_within_adamw_are_those_of_exact_arithmetic():
    parameter = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = make_optimizer("AdamW", [parameter], lr=0.1, weight_decay=0.0)
    parameter.grad = torch.tensor([0.5, -2.0, 1e-3], dtype=torch.float64)
    for _ in range(3):
        with arithmetic(), portable_powers(optimizer):
            optimizer.step()
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert type(optimizer.param_groups[0]["betas"][0]) is float
    # a constant gradient moves each element by lr g / (|g| + eps sqrt(...)) a step
    with localcontext() as context:
        context.prec = 40
        lr, eps = Decimal.from_float(0.1), Decimal.from_float(1e-8)
        for start, moved, g in zip((1, 1, 1), parameter.tolist(), parameter.grad.tolist(), strict=True):
            expected = Decimal(start)
            for _ in range(3):
                expected -= lr * Decimal(g) / (abs(Decimal(g)) + eps)
            assert moved == pytest.approx(float(expected), rel=1e-14)


def test_measured_processors_agree_in_every_portable_digest():
    files = sorted((Path(__file__).parents[2] / "benchmarks/results/portability").glob("*.json"))
    measured = [json.loads(path.read_text()) for path in files]
    assert len({result["processor"] for result in measured}) == len(files) > 1
    portable, ordinary = (
        [{k: v for k, v in result["digests"].items() if k.startswith(kind)} for result in measured]
        for kind in ("portable: ", "torch: ")
    )
    assert all(digests == portable[0] for digests in portable)
    assert len(portable[0]) > 300
    assert ordinary[0] != ordinary[1]  # so these processors do compute by other kernels
