"""The one-page twin of the method, examples/minimal.py, gives the library's numbers."""

import importlib.util
from pathlib import Path

import pytest
import torch
from small_runs import call

from noiseless.files.directory import RunDirectory

STEPS = 3


def load():
    path = Path(__file__).parents[1] / "examples" / "minimal.py"
    spec = importlib.util.spec_from_file_location("minimal", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_minimal_equals_the_library(tmp_path, capsys):
    path = tmp_path / "run"
    schedule = ("--warmup", 2, "--horizon", 133)
    flags = ("--steps", STEPS, *schedule, "--dtype", "float64", "--chunk", 1, "--threads", 1, "--run-dir", path)
    # The page leaves the running statistics to torch, as an exponential average. They enter the test accuracy alone.
    assert call("train", "fb-regularized", *flags, "--statistics", "ema").code == 0
    rows = RunDirectory(path).rows()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        page = load()
        page.WARMUP = 2  # as a run of three steps has no room for the page's 13
        twin = page.run(STEPS, dtype=torch.float64)
    finally:
        torch.set_num_threads(threads)
    library_rows = [(row["train_loss"], row["gradient_norm"], row["parameter_norm"]) for row in rows]
    # The same formulas in float64, which round to 1e-16. The penalty divides a difference of gradients by
    # h = 0.01 / ||v||, about 1e-2, and batch norm over three steps amplifies what it gets: a factor of 1e6 is allowed.
    for step, (page_row, library_row) in enumerate(zip(twin, library_rows, strict=True)):
        assert page_row == pytest.approx(library_row, rel=1e-10), step
    assert len({loss for loss, _, _ in twin}) == STEPS  # new augmentation and new parameters: no two steps are equal
    assert all(row["penalty"] > 0 for row in rows[1:])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"test accuracy {rows[-1]['test_accuracy']:.2%}"
