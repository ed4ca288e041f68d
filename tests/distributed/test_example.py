"""examples/fsdp.py prints the same for one and two ranks of torchrun."""

from __future__ import annotations

from pathlib import Path

import printed

EXAMPLES = Path(__file__).parents[2] / "examples"


def _printed(ranks, path):
    code, out = printed.launch(ranks, path, restarts=0, module="fsdp")
    assert code == 0, out
    return [line for line in out.splitlines() if line.startswith(("step", "parameters"))]


def test_the_example_has_the_same_bits_on_one_and_two_ranks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    lines = _printed(1, tmp_path / "one")
    assert len(lines) == 6
    losses = [float(line.split()[3].rstrip(",")) for line in lines[:5]]
    assert losses[4] < losses[0] / 2  # it learns
    assert _printed(2, tmp_path / "two") == lines
