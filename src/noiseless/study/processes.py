"""Executes many runs in parallel processes on the cores of this machine.

Each run has one thread, so its bits do not depend on how many others run at the same time. On Ctrl-C the parent tells
the processes to stop; if the parent is killed, they write checkpoints and stop by themselves.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import os
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

from noiseless import trust
from noiseless.errors import message, out_of_memory
from noiseless.files.directory import Row, RunDirectory
from noiseless.objective.workers import Alone
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.recipe import Recipe
from noiseless.run import prepared
from noiseless.run.speed import keep_memory
from noiseless.study.reproduce import Job

ONE_THREAD = Settings(threads=1)
"""default settings of new runs"""
OnRow = Callable[[Job, Row], None]
"""(job, a new row of its record) -> None"""
OnEnd = Callable[[Job, str | None], None]
"""(job, why it did not reach its last step, or None) -> None"""


def execute(
    jobs: list[Job],
    at_once: int,
    on_row: OnRow,
    on_end: OnEnd,
    settings: Settings = ONE_THREAD,
    on_message: Callable[[Job, str], None] = lambda job, text: None,
    command: str = "reproduce",
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Executes the jobs that have not finished, the longest first.

    Args:
        jobs: checked by `reproduce.check`.
        at_once: number of processes.
        on_row: called with each new row of each run.
        on_end: called for each run that has ended, also for those that had finished before.
        settings: of new runs, except for `run_dir`. The trackers apply to resumed runs as well.
        on_message: called with messages to the user about a run.
        command: name of the command that executes the jobs, for their records.
        stopped: called several times a second; returns whether the runs are to stop.

    Raises:
        KeyboardInterrupt: after `stopped` or Ctrl-C, once each run has written a checkpoint.
        ValueError: if a run fails or a process is killed; the other runs have written checkpoints.
    """
    waiting = [job for job in jobs if not job.finished]
    for job in jobs:
        if job not in waiting:
            on_end(job, None)
    if not waiting:
        return
    prepared.start()
    context = multiprocessing.get_context("forkserver")
    rows, stop = context.Queue(), context.Event()
    by_path = {job.path: job for job in waiting}
    with ProcessPoolExecutor(min(at_once, len(waiting)), context, _start, (rows, stop, trust.permitted())) as pool:
        # so that no long run starts when the others have ended
        longest_first = sorted(waiting, key=_cost, reverse=True)
        try:
            started = {
                pool.submit(_run, job.recipe, job.path, _settings(job, settings), command): job for job in longest_first
            }
            while started:
                if stopped():
                    raise KeyboardInterrupt
                _tell(rows, by_path, on_row, on_message)
                for future in [f for f in started if f.done()]:
                    problem = future.result()
                    _tell(rows, by_path, on_row, on_message, wait=0)
                    on_end(started.pop(future), problem)
        except BrokenProcessPool:
            raise ValueError(
                "a process was killed (out of memory?): start the same command again to continue, with fewer --jobs if"
                " memory is short"
            ) from None
        except BaseException:
            stop.set()
            try:
                pool.shutdown(cancel_futures=True)
            except KeyboardInterrupt:  # a second Ctrl-C: do not wait for the end of the step
                for process in multiprocessing.active_children():
                    process.terminate()
            raise


def _settings(job: Job, settings: Settings) -> Settings:
    return settings if job.keep_every is None else replace(settings, keep_every=job.keep_every)


def _cost(job: Job) -> float:
    """Estimate of a job's relative duration: small blocks take longer for the same number of passes."""
    return job.recipe.schedule.steps * job.passes / job.recipe.objective.block**0.25


def _tell(
    rows: Any, by_path: dict[Path, Job], on_row: OnRow, on_message: Callable[[Job, str], None], wait: float = 0.1
) -> None:
    """Hands on the rows and messages in the queue; waits for the first one for at most `wait` seconds."""
    try:
        while True:
            path, item = rows.get(timeout=wait) if wait else rows.get_nowait()
            wait = 0
            if isinstance(item, str):
                on_message(by_path[path], item)
            else:
                on_row(by_path[path], item)
    except queue.Empty:
        return


_rows: Any = None
_stop: multiprocessing.synchronize.Event | None = None
_at_work = threading.Lock()


def _start(rows: Any, stop: multiprocessing.synchronize.Event, trusted: list[str]) -> None:
    """Initialises a process of the pool. It ignores Ctrl-C, as the parent tells the runs to stop."""
    global _rows, _stop
    prepared.take_signals(interrupt=signal.SIG_IGN)
    keep_memory()
    trust.permit(*trusted)
    _rows, _stop = rows, stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _asked_to_stop() -> bool:
    assert _stop is not None
    return _stop.is_set() or _orphaned()


def _orphaned() -> bool:
    """Whether the parent process has ended, so that it cannot tell this one to stop."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _end_with_parent() -> None:
    """Ends this process once the parent has ended and the current run has written its checkpoint."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    with _at_work:
        os._exit(1)


def _run(recipe: Recipe, path: Path, settings: Settings, command: str) -> str | None:
    """Runs or resumes one job, in a process of the pool.

    Returns:
        Why the run diverged, or None.

    Raises:
        ValueError: for any other error. Other types may not survive pickling on the way to the parent.
    """
    from noiseless.files.environment import environment
    from noiseless.run.build import Experiment, build, rebuild
    from noiseless.run.tracking import Tracking, chosen
    from noiseless.run.train import Diverged, Interrupted, Progress, train

    def tell(text: str) -> None:
        _rows.put((path, text))

    if _orphaned():
        return None
    directory = RunDirectory(path)
    _at_work.acquire()
    try:
        trackers = chosen(settings)

        def train_to_end(experiment: Experiment) -> None:
            with Tracking(trackers, experiment.config, directory, tell) as tracked:

                def on_row(row: Row) -> None:
                    _rows.put((path, row))
                    tracked.log(row)

                train(experiment, directory, Progress(on_row, tell))

        if (path / "config.json").exists():
            with directory.locked():
                train_to_end(rebuild(directory, Alone(_asked_to_stop)))
        else:
            config = Config(recipe, replace(settings, run_dir=str(path)))
            experiment = build(config, Alone(_asked_to_stop), path)
            with directory.created(
                experiment.config, environment(experiment.config, experiment.data_sha256, ["noiseless", command])
            ):
                train_to_end(experiment)
    except Diverged as error:
        return str(error)
    except Interrupted:
        pass
    except Exception as error:
        if not (isinstance(error, (ValueError, OSError)) or out_of_memory(error)):
            raise
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise ValueError(message(error)) from None
    finally:
        _at_work.release()
    return None
