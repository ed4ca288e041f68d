"""The examples of docs/library.md run, one after the other, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[1] / "docs/library.md").read_text()


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    loop, filled, saved = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {}
    exec(compile(loop, "library.md", "exec"), names)
    loss, penalty, accuracy, passes = map(float, capsys.readouterr().out.split())
    assert 0 < loss < 2.5  # equal scores have log 10 = 2.30
    assert penalty > 0
    assert 0 <= accuracy <= 1
    assert passes == pytest.approx(2)
    exec(compile(filled, "library.md", "exec"), names)
    assert names["value"] == pytest.approx(loss + penalty, rel=0.1)  # another mask and rate
    assert names["risk"].in_step(20).measure().loss < loss - 0.05  # L-BFGS has moved on
    exec(compile(saved, "library.md", "exec"), names)
    assert (tmp_path / "head.pt").stat().st_size < 3500 < (tmp_path / "checkpoint.pt").stat().st_size
    head = torch.load(tmp_path / "head.pt", weights_only=True)
    assert torch.equal(head["weight"], names["model"][3].weight)
