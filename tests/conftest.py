"""Fixtures for all tests."""

from __future__ import annotations

import compileall
import importlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_runs
import torch
from _pytest.assertion import rewrite

os.environ.pop("COLUMNS", None)
import noiseless.commands.console  # noqa: F401  imported while COLUMNS is not set, so that tests can set a width
from noiseless import trust

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # a shell ignores SIGINT in background jobs, and the programs that the tests interrupt would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


SLOW = (
    "test_compiled", "test_browser", "test_workers", "test_kills", "test_pages", "test_speed", "test_cli_race",
    "test_team", "test_noise", "test_hostile_runs", "test_landscape", "test_cifar_runs", "test_runs", "test_modes",
    "test_thresholds", "test_cli_reproduce_unfinished", "test_site", "test_searched", "test_centralflow",
    "test_page_commands", "test_stops", "test_resume", "test_periodic", "test_edge", "test_damaged", "test_cli_bench",
)  # fmt: skip
"""files of tests that take some ten processor seconds or more; they come first, so that none is alone at the end"""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compiles the package, the helpers and the tests once; some environments forbid it to the programs themselves."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        compileall.compile_dir(Path(trust.__file__).parent, quiet=2)
        compileall.compile_dir(Path(__file__).parent, maxlevels=0, rx=re.compile("/test_"), quiet=2)
        if "xdist" in sys.modules and session.config.getoption("numprocesses", None):
            _rewrite_tests(session.config)


def _rewrite_tests(config: pytest.Config) -> None:
    """Writes the code of all tests, with pytest's asserts, as pytest does: else each of its processes takes 10 s."""
    for path in Path(__file__).parent.rglob("test_*.py"):
        file = rewrite.get_cache_dir(path) / (path.stem + rewrite.PYC_TAIL)
        if rewrite._read_pyc(path, file) is None and rewrite.try_makedirs(file.parent):
            stat, code = rewrite._rewrite_test(path, config)
            rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, stat, file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts slow files first."""
    rank = {name: k for k, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(SLOW)))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _compiled_code(tmp_path_factory) -> None:
    """Keeps compiled code in a temporary directory that all processes of the tests and their programs share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled-code"
    folder.mkdir(exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


@pytest.fixture(autouse=True)
def _permits() -> Iterator[None]:
    """Ends what a test permits with the test."""
    with trust.trusting(None):
        yield


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are empty files: to render those of a command takes a second or two."""
    monkeypatch.setattr("noiseless.report.drawing.encode", lambda drawing, kind: b"")


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark by its name; the working directory is the root of the repository."""
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The value of --data for the tiny data set."""
    return small_runs.npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="session")
def practice(data, tmp_path_factory):
    """A finished run of fb-practice, evaluated every 2 steps, with a checkpoint after each step."""
    path = tmp_path_factory.mktemp("runs") / "practice"
    return small_runs.run(path, small_runs.small_recipe(data), checkpoint_seconds=0, keep=9, evaluate_every=2)


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    """A finished run of 4 steps with a penalty and a checkpoint after each step."""
    path = tmp_path_factory.mktemp("runs") / "kept"
    return small_runs.run(path, small_runs.small_recipe(data, "fb-regularized", steps=4), keep_every=1)


@pytest.fixture
def run_copy(finished, tmp_path):
    """A copy of `finished`, without answers."""
    return small_runs.copy(finished, tmp_path / "run")
