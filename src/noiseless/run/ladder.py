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
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from noiseless.errors import message
from noiseless.objective.workers import Alone
from noiseless.run.config import Config, Settings
from noiseless.run.cost import passes_a_step, seconds
from noiseless.run.directory import Row, RunDirectory
from noiseless.run.recipe import Recipe

Told = Callable[["Job", Row], None]
Ended = Callable[["Job", str | None], None]
"""(job, why it did not reach its end, if so)"""


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
    def passes(self) -> float:
        """What a step costs."""
        return passes_a_step(self.recipe)

    @property
    def directory(self) -> RunDirectory:
        """Where its record is."""
        return RunDirectory(self.path)

    @property
    def finished(self) -> bool:
        """Whether its run has ended."""
        return self.directory.model.exists()

    def refuse_other(self) -> None:
        """Raises if its place holds a run of another recipe.

        Raises:
            ValueError: naming the fields that differ.
        """
        if not (self.path / "config.json").exists():
            return
        found = self.directory.config().recipe
        planned = {f.name: getattr(self.recipe, f.name) for f in fields(Recipe)}
        differs = [k for k, v in planned.items() if v is not None and v != getattr(found, k)]
        if differs:
            raise ValueError(
                f"{self.path} holds a run with another {', '.join(differs)}: choose another --run-dir, or remove it"
            )


def plan(rows: Iterable[Recipe], seeds: int, directory: Path) -> list[Job]:
    """The runs of a ladder, the seeds of a row in turn."""
    return [Job(replace(row, seed=seed), directory / f"{row.name}-seed{seed}") for row in rows for seed in range(seeds)]


def check(jobs: list[Job], data_dir: str | None = None) -> dict[Recipe, float]:
    """Refuses a ladder that cannot run as it is planned, before anything of it is written, and measures what it costs.

    Args:
        jobs: the plan.
        data_dir: directory of data sets; None: the default.

    Returns:
        Seconds that a run of each recipe (with the seed 0) that has not ended will take, from a short measurement.

    Raises:
        ValueError: if a place holds a run of another recipe or of data that have changed since, or if a recipe does not
            fit the data, the model or the machine.
    """
    from noiseless.data import home, load
    from noiseless.run.build import build

    for job in jobs:
        job.refuse_other()
    sets = {(job.recipe.data, job.recipe.pixels) for job in jobs}
    digests = {(data, pixels): load(data, home(data_dir), pixels).sha256() for data, pixels in sets}
    for job in jobs:
        if (job.path / "config.json").exists():
            job.directory.refuse_other_data(digests[job.recipe.data, job.recipe.pixels])
    waiting = dict.fromkeys(replace(job.recipe, seed=0) for job in jobs if not job.finished)
    settings = Settings(threads=1, data_dir=data_dir)
    return {recipe: seconds(build(Config(recipe, settings))) for recipe in waiting}


def estimate(jobs: list[Job], costs: dict[Recipe, float], at_once: int) -> float:
    """Seconds until all jobs have ended: their sum over the processes, or the longest one."""
    left = [costs[replace(job.recipe, seed=0)] * _share_left(job) for job in jobs if not job.finished]
    return max([sum(left) / at_once, *left], default=0.0)


def _share_left(job: Job) -> float:
    done = job.directory.rows()[-1]["step"] + 1 if job.directory.rows() else 0
    return 1 - done / job.recipe.steps


def execute(jobs: list[Job], at_once: int, on_row: Told, on_end: Ended, data_dir: str | None = None) -> None:
    """Runs the jobs that have not finished, the longest first.

    Args:
        jobs: what to run, found good by `check`.
        at_once: processes.
        on_row: told of each row of each run.
        on_end: told of each run that has ended, those that were finished before included.
        data_dir: directory of data sets; None: the default.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once each run has written a checkpoint.
        ValueError: if a run cannot go on, or a process was killed; the others have written checkpoints.
    """
    waiting = [job for job in jobs if not job.finished]
    for job in jobs:
        if job not in waiting:
            on_end(job, None)
    if not waiting:
        return
    context = multiprocessing.get_context("spawn")
    rows, stop = context.Queue(), context.Event()
    by_path = {job.path: job for job in waiting}
    with ProcessPoolExecutor(min(at_once, len(waiting)), context, _start, (rows, stop)) as pool:
        # the dearest first, so that no long run starts when the others have ended
        dearest = sorted(waiting, key=_cost, reverse=True)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the processes inherit: Ctrl-C is for the parent
        try:
            started = {pool.submit(_run, job.recipe, job.path, data_dir): job for job in dearest}
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            while started:
                _tell(rows, by_path, on_row)
                for future in [f for f in started if f.done()]:
                    problem = future.result()
                    _tell(rows, by_path, on_row, wait=0)
                    on_end(started.pop(future), problem)
        except BrokenProcessPool:
            raise ValueError("a process of the ladder was killed (out of memory?); the same command goes on") from None
        except BaseException:
            stop.set()
            try:
                pool.shutdown(cancel_futures=True)
            except KeyboardInterrupt:  # asked twice: not even to the end of the step
                for process in multiprocessing.active_children():
                    process.terminate()
            raise


def _cost(job: Job) -> float:
    return job.recipe.steps * job.passes / job.recipe.block**0.25  # small blocks are dearer


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


def _run(recipe: Recipe, path: Path, data_dir: str | None) -> str | None:
    """One job, in a process of the pool.

    Returns:
        Why it did not stay finite, if so.

    Raises:
        ValueError: for whatever else went wrong; a plain one, as not every error can be pickled on its way.
    """
    from noiseless.run.build import build, rebuild
    from noiseless.run.directory import environment
    from noiseless.run.train import Diverged, Interrupted, Progress, train

    assert _stop is not None
    directory = RunDirectory(path)
    progress = Progress(lambda row: _rows.put((path, row)))
    try:
        if (path / "config.json").exists():
            with directory.locked():
                train(rebuild(directory, Alone(_stop.is_set)), directory, progress)
        else:
            made = build(
                Config(recipe, Settings(run_dir=str(path), data_dir=data_dir, threads=1)), Alone(_stop.is_set), path
            )
            with directory.created(made.config, environment(made.config, made.data_sha256, ["noiseless", "reproduce"])):
                train(made, directory, progress)
    except Diverged as error:
        return str(error)
    except Interrupted:
        pass
    except (ValueError, OSError) as error:
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise ValueError(message(error)) from None
    return None
