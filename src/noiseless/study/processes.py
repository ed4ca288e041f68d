"""The runs of a ladder, several at once on the machine's cores.

Each run is on one thread, so its bits do not depend on how many run beside it. The parent tells the processes to stop;
where it was killed, they stop by themselves, with checkpoints.
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

from noiseless.errors import message
from noiseless.files.directory import Row, RunDirectory
from noiseless.objective.workers import Alone
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.recipe import Recipe
from noiseless.run.speed import keep_memory
from noiseless.study.reproduce import Job

ONE_THREAD = Settings(threads=1)
Told = Callable[[Job, Row], None]
Ended = Callable[[Job, str | None], None]
"""(job, why it did not reach its end, if so)"""


def execute(
    jobs: list[Job],
    at_once: int,
    on_row: Told,
    on_end: Ended,
    settings: Settings = ONE_THREAD,
    on_message: Callable[[Job, str], None] = lambda job, text: None,
    command: str = "reproduce",
) -> None:
    """Runs the jobs that have not finished, the longest first.

    Args:
        jobs: what to run, found good by `check`.
        at_once: processes.
        on_row: told of each row of each run.
        on_end: told of each run that has ended, those that were finished before included.
        settings: of new runs, the place of each aside; their trackers are those of resumed ones as well.
        on_message: told what a user should know of a run.
        command: that runs them, for their records.

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
    context = multiprocessing.get_context("forkserver")
    rows, stop = context.Queue(), context.Event()
    by_path = {job.path: job for job in waiting}
    with ProcessPoolExecutor(min(at_once, len(waiting)), context, _start, (rows, stop)) as pool:
        # the dearest first, so that no long run starts when the others have ended
        dearest = sorted(waiting, key=_cost, reverse=True)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the processes inherit: Ctrl-C is for the parent
        try:
            started = {pool.submit(_run, job.recipe, job.path, settings, command): job for job in dearest}
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            while started:
                _tell(rows, by_path, on_row, on_message)
                for future in [f for f in started if f.done()]:
                    problem = future.result()
                    _tell(rows, by_path, on_row, on_message, wait=0)
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
    return job.recipe.schedule.steps * job.passes / job.recipe.objective.block**0.25  # small blocks are dearer


def _tell(
    rows: Any, by_path: dict[Path, Job], on_row: Told, on_message: Callable[[Job, str], None], wait: float = 0.1
) -> None:
    try:
        while True:
            path, told = rows.get(timeout=wait) if wait else rows.get_nowait()
            if isinstance(told, str):
                on_message(by_path[path], told)
            else:
                on_row(by_path[path], told)
    except queue.Empty:
        return


_rows: Any = None
_stop: multiprocessing.synchronize.Event | None = None
_at_work = threading.Lock()


def _start(rows: Any, stop: multiprocessing.synchronize.Event) -> None:
    """In each process of the pool: Ctrl-C reaches the parent, which tells the runs to stop."""
    global _rows, _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    keep_memory()
    _rows, _stop = rows, stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _asked_to_stop() -> bool:
    assert _stop is not None
    return _stop.is_set() or _orphaned()


def _orphaned() -> bool:
    """Whether the parent was killed, which can tell nothing any more."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _end_with_parent() -> None:
    """Ends this process, which would wait for ever, when the parent is gone and the run at hand has been written."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    with _at_work:
        os._exit(1)


def _run(recipe: Recipe, path: Path, settings: Settings, command: str) -> str | None:
    """One job, in a process of the pool.

    Returns:
        Why it did not stay finite, if so.

    Raises:
        ValueError: for whatever else went wrong; a plain one, as not every error can be pickled on its way.
    """
    from noiseless.files.directory import environment
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

        def go(made: Experiment) -> None:
            with Tracking(trackers, made.config, directory, tell) as tracked:

                def told(row: Row) -> None:
                    _rows.put((path, row))
                    tracked.log(row)

                train(made, directory, Progress(told, tell))

        if (path / "config.json").exists():
            with directory.locked():
                go(rebuild(directory, Alone(_asked_to_stop)))
        else:
            config = Config(recipe, replace(settings, run_dir=str(path)))
            made = build(config, Alone(_asked_to_stop), path)
            with directory.created(made.config, environment(made.config, made.data_sha256, ["noiseless", command])):
                go(made)
    except Diverged as error:
        return str(error)
    except Interrupted:
        pass
    except (ValueError, OSError) as error:
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise ValueError(message(error)) from None
    finally:
        _at_work.release()
    return None
