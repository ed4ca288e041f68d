"""The whole ladder: every row with every seed, each a run of its own, several at once on the machine's cores.

Each run is on one thread, so its bits do not depend on how many run beside it. Finished runs are kept and unfinished
ones resumed, so the same command goes on after an interruption.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import os
import queue
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noiseless.run.config import Config, Recipe, Settings
from noiseless.run.directory import Row, RunDirectory

Told = Callable[["Job", Row], None]


@dataclass(frozen=True)
class Job:
    """One row of the ladder with one seed."""

    recipe: Recipe
    path: Path

    @property
    def title(self) -> str:
        """How it is called in progress."""
        return f"{self.recipe.name} seed {self.recipe.seed}"

    @property
    def directory(self) -> RunDirectory:
        """Where its record is."""
        return RunDirectory(self.path)

    @property
    def finished(self) -> bool:
        """Whether its run has ended."""
        return self.directory.model.exists()


def plan(rows: Iterable[Recipe], seeds: int, directory: Path) -> list[Job]:
    """The runs of a ladder, the seeds of a row in turn."""
    return [Job(replace(row, seed=seed), directory / f"{row.name}-seed{seed}") for row in rows for seed in range(seeds)]


def execute(jobs: list[Job], at_once: int, on_row: Told, on_end: Callable[[Job], None]) -> None:
    """Runs the jobs that have not finished, the longest first.

    Args:
        jobs: what to run.
        at_once: processes.
        on_row: told of each row of each run.
        on_end: told of each run that has ended, those that were finished before included.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once each run has written a checkpoint.
    """
    waiting = [job for job in jobs if not job.finished]
    for job in jobs:
        if job not in waiting:
            on_end(job)
    if not waiting:
        return
    context = multiprocessing.get_context("spawn")
    rows, stop = context.Queue(), context.Event()
    by_path = {job.path: job for job in waiting}
    with ProcessPoolExecutor(min(at_once, len(waiting)), context, _start, (rows, stop)) as pool:
        # the dearest first, so that no long run starts when the others have ended
        started = {pool.submit(_run, job.recipe, job.path): job for job in sorted(waiting, key=_cost, reverse=True)}
        try:
            while started:
                _tell(rows, by_path, on_row)
                for future in [f for f in started if f.done()]:
                    _end(future)
                    _tell(rows, by_path, on_row, wait=0)
                    on_end(started.pop(future))
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _cost(job: Job) -> float:
    return job.recipe.steps * (2 if job.recipe.penalty else 1) / job.recipe.block**0.25


def _end(future: Future[None]) -> None:
    future.result()


def _tell(rows: Any, by_path: dict[Path, Job], on_row: Told, wait: float = 0.1) -> None:
    try:
        while True:
            path, row = rows.get(timeout=wait) if wait else rows.get_nowait()
            on_row(by_path[path], row)
    except queue.Empty:
        return


_rows: Any = None
_stop: multiprocessing.synchronize.Event | None = None


def _start(rows: Any, stop: multiprocessing.synchronize.Event) -> None:
    """In each process of the pool: Ctrl-C reaches the parent, which tells the runs to stop."""
    global _rows, _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _rows, _stop = rows, stop


def _run(recipe: Recipe, path: Path) -> None:
    from noiseless.run.build import build
    from noiseless.run.train import Interrupted, Progress, train

    assert _stop is not None
    experiment = build(Config(recipe, Settings(run_dir=str(path), threads=1)))
    directory = RunDirectory(path)
    with directory.locked():
        if (path / "config.json").exists():
            if directory.config().recipe != experiment.config.recipe:
                raise ValueError(f"{path} holds a run of another config: choose another --run-dir")
        else:
            directory = RunDirectory.create(path, experiment.config, ["reproduce"])
        try:
            train(experiment, directory, Progress(lambda row: _rows.put((path, row)), _stop.is_set))
        except Interrupted:
            return
