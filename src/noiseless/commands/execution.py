"""Many runs at once, as the commands for tables and races show them: bars, lines, Ctrl-C."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from noiseless.commands.console import console
from noiseless.commands.interrupt import handled

if TYPE_CHECKING:
    from noiseless.files.directory import Row
    from noiseless.recipes.config import Settings
    from noiseless.study.reproduce import Job


def import_beside() -> None:
    """Lets the server from which the runs' processes are forked import torch, while this process does and measures."""
    modules = ["noiseless.study.processes", "noiseless.run.build", "noiseless.run.train"]
    modules.append("torch._dynamo")  # which an optimizer imports when it is made
    multiprocessing.set_forkserver_preload(modules)
    multiprocessing.forkserver.ensure_running()


def refuse_place(path: Path) -> None:
    """Raises where runs cannot be written, before anything is measured."""
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "is no directory" if not there.is_dir() else "cannot be written"
        raise ValueError(f"{there} {what}: choose another --run-dir than {path}")


def execute(
    jobs: list[Job], at_once: int, settings: Settings, line: Callable[[Job], str | None], command: str
) -> tuple[bool, list[str]]:
    """Runs those that have not finished, with progress.

    Args:
        jobs: what is to be there in the end.
        at_once: processes.
        settings: of new runs.
        line: what is printed of a job that has ended; None: nothing.
        command: name of the command, for the runs' records.

    Returns:
        Whether it was stopped, and the titles of what diverged.
    """
    from noiseless.report import live
    from noiseless.study import processes

    failed: list[str] = []
    try:
        with handled(signal.default_int_handler, signal.SIGTERM), live.Live(console) as shown:
            left = {job.title: job.recipe.schedule.steps * job.passes for job in jobs if not job.finished}
            if left:
                shown.plan(sum(left.values()))

            def told(job: Job, found: Row) -> None:
                if job.title in left:  # rows and ends come by two ways: a row may come after the end
                    shown.advance(job.title, job.recipe.schedule.steps, found)
                    shown.spend(job.passes)
                    left[job.title] -= job.passes

            def ended(job: Job, problem: str | None) -> None:
                shown.spend(left.pop(job.title, 0.0))  # a run may be resumed, or end before its steps
                if problem:
                    failed.append(job.title)
                    shown.end(job.title, f"{job.title}: {problem}", "bold red")
                else:
                    shown.end(job.title, line(job))

            def warned(job: Job, text: str) -> None:
                console.print(f"{job.title}: {text}", style="yellow")

            processes.execute(jobs, at_once, told, ended, settings, warned, command)
    except KeyboardInterrupt:
        return True, failed
    return False, failed
