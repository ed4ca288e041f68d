"""Executes many runs in parallel for `reproduce` and `race`, with progress bars and Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from noiseless.commands.console import console
from noiseless.commands.interrupt import stop_signals
from noiseless.files.atomic import clear, try_place
from noiseless.files.storage import WITHOUT_COPY, refuse_unfit

if TYPE_CHECKING:
    from noiseless.files.directory import Row
    from noiseless.recipes.config import Settings
    from noiseless.study.reproduce import Job

MOST_JOBS = 1024
"""largest number of parallel runs"""


def refuse_place(path: Path) -> None:
    """Raises if runs cannot be written into a directory, before anything is measured."""
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ValueError(f"{existing} is not a directory: choose another --run-dir than {path}")
    refuse_unfit(path.absolute(), WITHOUT_COPY)
    try:
        try_place(existing)
        if existing == path.absolute():
            clear(existing, own=lambda name: False)  # of tables and figures, by commands that were killed
    except OSError:
        raise ValueError(f"{existing} is not writable: choose another --run-dir than {path}") from None


def execute(
    jobs: list[Job], at_once: int, settings: Settings, line: Callable[[Job], str | None], command: str
) -> tuple[bool, list[str]]:
    """Executes the jobs that have not finished, with progress bars.

    Args:
        jobs: all planned runs, finished ones included.
        at_once: number of processes.
        settings: of new runs.
        line: (job that has ended) -> the line to print, None for no line.
        command: name of the command, for the records of the runs.

    Returns:
        Whether the user stopped it, and the titles of jobs that diverged.
    """
    from noiseless.report import live
    from noiseless.study import processes

    failed: list[str] = []
    try:
        with stop_signals() as signals, live.Live(console) as shown:
            left = {job.title: job.recipe.schedule.steps * job.passes for job in jobs if not job.finished}
            if left:
                shown.plan(sum(left.values()))

            def on_row(job: Job, row: Row) -> None:
                if job.title in left:  # a row may arrive after the end of its job, as they come by different ways
                    shown.advance(job.title, job.recipe.schedule.steps, row)
                    shown.spend(job.passes)
                    left[job.title] -= job.passes

            def on_end(job: Job, problem: str | None) -> None:
                shown.spend(left.pop(job.title, 0.0))  # passes remain if a run was resumed or ended early
                if problem:
                    failed.append(job.title)
                    shown.end(job.title, f"{job.title}: {problem}", "bold red")
                else:
                    shown.end(job.title, line(job))

            def on_message(job: Job, text: str) -> None:
                console.print(f"{job.title}: {text}", style="yellow")

            processes.execute(jobs, at_once, on_row, on_end, settings, on_message, command, lambda: bool(signals))
    except KeyboardInterrupt:
        return True, failed
    return False, failed
