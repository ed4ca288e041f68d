"""What the commands that ask about a run's state share: flags, the workers of a job, progress, and how they end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from noiseless.commands.arguments import take
from noiseless.commands.console import console, duration, tell_error
from noiseless.commands.interrupt import at_once, noted
from noiseless.exits import INTERRUPTED, WORKER_LOST

if TYPE_CHECKING:
    from noiseless.ask.state import RunState, StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers


class Bar:
    """Progress: a bar in a terminal, elsewhere one line after the first sweep."""

    def __init__(self, title: str, progress: Progress):
        self._title, self._progress = title, progress
        self._left: int | None = None

    def begin(self, done: int, total: int) -> None:
        """Shows how many there are."""
        self._left = total - done
        self._task = self._progress.add_task(self._title, total=total, completed=done)

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
def bar(title: str) -> Iterator[Bar]:
    """Progress while something is computed.

    Args:
        title: what is counted.

    Yields:
        The bar.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, auto_refresh=console.is_terminal, refresh_per_second=4,
        disable=not console.is_terminal,
    ) as progress:  # fmt: skip
        yield Bar(title, progress)


@dataclass(frozen=True)
class StateFlags:
    """Flags of every command that asks a question about a run's state."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN[@STEP]")]
    """directory of the run, with @STEP for the state after that many steps; none: its end"""
    workers: int = 1
    """processes that share the work, with the same bits"""

    def check(self) -> None:
        """Refuses values that no run can make right.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        if self.workers < 1:
            raise ValueError(f"--workers must be a whole number of at least 1, not {self.workers}")


Flags = TypeVar("Flags", bound=StateFlags)


def answer_question(
    command: str,
    arguments: list[str],
    flags_type: type[Flags],
    question: Callable[[Flags, StateAddress, Workers], Iterable[Answer]],
    show: Callable[[Flags, StateAddress, Answer], None],
    stopped: str = "nothing is kept; start again with",
) -> int:
    """A command that asks about a run's state: parses, starts the job, keeps and prints each answer.

    Args:
        command: its name.
        arguments: of the command.
        flags_type: the dataclass of its flags.
        question: computes the answers; each worker calls it, and loads the state by `load`.
        show: prints an answer, in the first worker.
        stopped: printed before the command with which a user can go on, where the question is stopped by a signal.

    Returns:
        The exit code.
    """
    given = [command, *arguments]
    flags = tyro.cli(flags_type, args=arguments, prog=f"noiseless {command}", config=(tyro.conf.OmitArgPrefixes,))
    flags.check()
    from noiseless.ask.state import StateAddress
    from noiseless.files import answers
    from noiseless.run import team

    address = StateAddress.read(flags.run)
    if flags.workers > 1 and not team.in_job():
        return team.launch(flags.workers, take(given, "--workers")[1])

    def work(workers: Workers) -> int:
        for answer in question(flags, address, workers):
            if workers.rank == 0:
                path = answers.write(address.directory, answer)
                show(flags, address, answer)
                console.print(f"kept: {path}; noiseless report {address.directory.path} draws it")
        return 0

    return in_job(work, given, stopped)


def load(address: StateAddress, workers: Workers) -> RunState:
    """A run's objects at a state, for a question. While they are loaded, a signal ends the program at once."""
    from noiseless.ask.state import load_state

    with at_once():
        return load_state(address, workers)


def in_job(work: Callable[[Workers], int], given: list[str], stopped: str) -> int:
    """Works as one of the workers of a job, or alone.

    Args:
        work: (workers) -> exit code.
        given: the command, for what a user can type to go on.
        stopped: printed before that command where the work is stopped by a signal.

    Returns:
        The exit code.
    """
    from noiseless.objective.workers import SweepStoppedError, WorkerLostError
    from noiseless.run import team
    from noiseless.run.speed import keep_memory

    keep_memory()
    with noted() as signals:
        workers = team.join(lambda: bool(signals))
        try:
            return work(workers)
        except SweepStoppedError:
            console.print(f"stopped; {stopped}: noiseless {shlex.join(given)}")
            return INTERRUPTED
        except WorkerLostError as error:
            tell_error(str(error))
            sys.exit(WORKER_LOST)  # at once: torchrun is to start the workers anew
