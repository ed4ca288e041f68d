"""Runs tests on a copy of the source, in a process that has torch already."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torchvision", "numpy", "scipy.optimize"])  # not what pytest rewrites
GIGABYTE = 2**30


@dataclass(frozen=True)
class Limits:
    """Where a run is ended."""

    cpu: float = 3600.0
    """processor seconds of one process"""
    wall: float = 1800.0
    """seconds"""
    memory: int = 8 * GIGABYTE
    """bytes"""


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    result: str
    """survived, failed, crashed, or limit"""
    test: str | None = None
    """the test that failed first"""
    cpu: float = 0.0
    """processor seconds, without those of processes that the tests have started"""
    seconds: dict[str, float] = field(default_factory=dict)
    """of the calls of each test file, by its name"""


class _Watch:
    """A plugin of pytest that notes seconds and the first test that fails."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.failed: str | None = None

    def pytest_runtest_logreport(self, report: object) -> None:
        name, duration = str(getattr(report, "nodeid", "")), float(getattr(report, "duration", 0.0))
        file = Path(name.split("::")[0]).name
        self.seconds[file] = self.seconds.get(file, 0.0) + duration
        if getattr(report, "failed", False) and self.failed is None:
            self.failed = name


def _in_process(copy: Path, tests: list[str], limits: Limits, slow: bool, answer: Connection) -> None:
    import pytest

    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limits.cpu) + 1, int(limits.cpu) + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path.insert(0, str(copy))
    spec = importlib.util.find_spec("noiseless")
    assert spec is not None
    assert str(spec.origin).startswith(str(copy)), spec.origin
    watch = _Watch()
    options = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-m",
        "not soak" if slow else "not slow and not soak",
    ]
    code = pytest.main([*options, "--hypothesis-seed=0", *tests], plugins=[watch])
    answer.send((int(code), watch.failed, time.process_time(), watch.seconds))


def run_tests(copy: Path, tests: list[str], limits: Limits, slow: bool = False) -> Outcome:
    """Runs tests until the first one fails.

    Args:
        copy: directory that holds the package `noiseless`.
        tests: files or directories, relative to the repository's root, in the order in which they are run.
        limits: of the run.
        slow: whether tests that are marked slow are run.

    Returns:
        What became of it.

    Raises:
        RuntimeError: if pytest ran no test.
    """
    receive, send = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_in_process, args=(copy, tests, limits, slow, send))
    process.start()
    send.close()
    answer: tuple[int, str | None, float, dict[str, float]] | None = None
    late = not receive.poll(limits.wall)
    if not late:
        with contextlib.suppress(EOFError):
            answer = receive.recv()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)  # with all that it has started
    process.join()
    if answer is None:
        late = late or process.exitcode == -signal.SIGXCPU
        return Outcome("limit" if late else "crashed")
    code, test, cpu, seconds = answer
    if code in (4, 5):
        raise RuntimeError(f"pytest could not run {' '.join(tests)} in {copy}: exit code {code}")
    return Outcome("survived" if code == 0 else "failed", test, cpu, seconds)
