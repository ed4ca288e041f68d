"""What the commands that ask a run's state share: the workers of a job, progress, and how they end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from noiseless.commands.console import console, duration, tell_error
from noiseless.commands.interrupt import noted
from noiseless.exits import INTERRUPTED, WORKER_LOST

if TYPE_CHECKING:
    from noiseless.objective.workers import Workers


class Bar:
    """Progress: a bar in a terminal, elsewhere one line after the first sweep."""

    def __init__(self, what: str, progress: Progress):
        self._what, self._progress = what, progress
        self._left: int | None = None

    def begin(self, done: int, total: int) -> None:
        """Shows how many there are."""
        self._left = total - done
        self._task = self._progress.add_task(self._what, total=total, completed=done)

    def advance(self, seconds: float) -> None:
        """Shows one more; after the first, tells how long the others will take."""
        self._progress.advance(self._task)
        if self._left is not None and self._left > 1:
            rest = duration(seconds * (self._left - 1))
            self._progress.console.print(
                f"the first of them took {duration(seconds)}: the other {self._left - 1} take at most about {rest}"
            )
        self._left = None


@contextmanager
def bar(what: str) -> Iterator[Bar]:
    """Progress while something is computed.

    Args:
        what: is counted.

    Yields:
        The bar.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, auto_refresh=console.is_terminal, refresh_per_second=4,
        disable=not console.is_terminal,
    ) as progress:  # fmt: skip
        yield Bar(what, progress)


def in_job(work: Callable[[Workers], int], given: list[str], stopped: str) -> int:
    """Works as one of the workers of a job, or alone.

    Args:
        work: (workers) -> exit code.
        given: the command, for what a user can type to go on.
        stopped: what has become of what was found, where it is stopped.

    Returns:
        The exit code.
    """
    from noiseless.objective.workers import SweepStoppedError, WorkerLostError
    from noiseless.run import team
    from noiseless.run.speed import keep_memory

    keep_memory()
    with noted() as asked_to_stop:
        workers = team.join(lambda: bool(asked_to_stop))
        try:
            return work(workers)
        except SweepStoppedError:
            console.print(f"stopped; {stopped}: noiseless {shlex.join(given)}")
            return INTERRUPTED
        except WorkerLostError as error:
            tell_error(str(error))
            sys.exit(WORKER_LOST)  # at once: torchrun is to start the workers anew
