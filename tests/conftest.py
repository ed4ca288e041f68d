"""Fixtures for all tests."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import small_runs
import torch

os.environ.pop("COLUMNS", None)
import noiseless.commands.console  # noqa: F401  made without a width of its own, so that tests can set one

# the processes of ladders and races begin as copies of one that has imported what they need
multiprocessing.get_context("forkserver").set_forkserver_preload(["__main__", "noiseless.run.train", "noiseless.study"])

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # a shell that starts this in the background has it ignored, and so would all programs that the tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _compiled_code(tmp_path_factory) -> None:
    """Tests, and the programs that they start, share compiled code among themselves and with nobody else."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def benchmark(monkeypatch):
    """A benchmark by its name, as a module; it is run where it is: at the root of the repository."""
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The value of --data for the tiny set."""
    return small_runs.npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="session")
def practice(data, tmp_path_factory):
    """A finished run of fb-practice, evaluated at each step, with a checkpoint after each."""
    path = tmp_path_factory.mktemp("runs") / "practice"
    return small_runs.run(path, small_runs.small_recipe(data), checkpoint_seconds=0, keep=9, evaluate_every=2)


@pytest.fixture(scope="session")
def kept(data, tmp_path_factory):
    """A finished run of 4 steps with a penalty, each of its states kept."""
    path = tmp_path_factory.mktemp("runs") / "kept"
    return small_runs.run(path, small_runs.small_recipe(data, "fb-regularized", steps=4), keep_every=1)


@pytest.fixture
def mine(kept, tmp_path):
    """A copy of it, without answers."""
    return small_runs.copy(kept, tmp_path / "run")
