"""Shared code of the commands that analyse a state of a run: flags, workers, progress bar, messages when stopped."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from noiseless.commands import job
from noiseless.commands.addresses import Trust
from noiseless.commands.arguments import take
from noiseless.commands.console import console, duration
from noiseless.commands.interrupt import interruptible
from noiseless.commands.parsing import parse
from noiseless.errors import command as command_of
from noiseless.exits import INTERRUPTED, in_job
from noiseless.recipes.checks import at_least
from noiseless.trust import permit

if TYPE_CHECKING:
    from noiseless.ask.state import RunState
    from noiseless.files.address import StateAddress
    from noiseless.files.answers import Answer
    from noiseless.objective.workers import Workers


class Bar:
    """Progress of a computation: a bar in a terminal, otherwise one line after the first item."""

    def __init__(self, title: str, progress: Progress):
        self._title, self._progress = title, progress
        self._left: int | None = None

    def begin(self, done: int, total: int) -> None:
        """Shows how many items there are, and how many of them are done."""
        self._left = total - done
        self._task = self._progress.add_task(self._title, total=total, completed=done)

    def advance(self, seconds: float) -> None:
        """Shows that an item is done; after the first one, prints an estimate of the remaining time."""
        self._progress.advance(self._task)
        if self._left is not None and self._left > 1:
            rest = duration(seconds * (self._left - 1))
            self._progress.console.print(
                f"the first took {duration(seconds)}; the other {self._left - 1} will take about {rest} at most"
            )
        self._left = None


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """Shows progress while something is computed.

    Args:
        title: what is counted, such as `points`.

    Yields:
        The bar.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, auto_refresh=console.is_terminal, refresh_per_second=4,
        disable=not console.is_terminal, transient=True,
    ) as progress:  # fmt: skip
        yield Bar(title, progress)


@dataclass(frozen=True)
class StateFlags:
    """Flags of all commands that analyse a state of a run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN[@STEP]")]
    """directory of the run; @STEP is the state after that many steps, without it the final state"""
    workers: int = 1
    """processes that share the work; the result has the same bits for any number"""
    trust: Trust = ()
    """package.module:function of yours that the run names, which may be imported; a run is data and allows nothing"""

    def check(self) -> None:
        """Refuses values that are wrong for any run, those of a group of options by its own `check`.

        Raises:
            ValueError: with the flag, its value and what it must be.
        """
        at_least("workers", self.workers, 1)
        for member in fields(self):
            options = getattr(self, member.name)
            if is_dataclass(options):
                options.check()  # type: ignore[union-attr]


@dataclass(frozen=True)
class CostlyFlags(StateFlags):
    """Flags of the commands that say what an analysis costs before they begin it."""

    estimate: bool = False
    """print the cost, and compute nothing"""


Flags = TypeVar("Flags", bound=StateFlags)


def answer_question(
    command: str,
    arguments: list[str],
    flags_type: type[Flags],
    question: Callable[[Flags, StateAddress, Workers], Iterable[Answer]],
    show: Callable[[Flags, StateAddress, Answer], None],
    stopped: str = "there is no result; start again with",
    replays: bool = False,
) -> int:
    """Runs a command that analyses a state of a run: parses, starts the workers, saves and prints each answer.

    Args:
        command: its name.
        arguments: of the command.
        flags_type: dataclass of its flags.
        question: computes the answers; called by each worker, loads the state by `load`.
        show: prints an answer; called by the first worker.
        stopped: message after a signal, printed before the command that continues or repeats the work.
        replays: whether the steps to the state are made again, so that no file needs to hold it.

    Returns:
        The exit code.
    """
    command_line = [command, *arguments]
    args = parse(flags_type, arguments, command, flat=True)
    args.check()
    permit(*args.trust)
    from noiseless.files import answers
    from noiseless.files.address import StateAddress

    address = StateAddress.read(args.run)
    if not replays:
        address.refuse_missing()  # before torch is imported
    several = job.needed(args.workers)
    if not in_job():  # the command that started the job has said so
        console.print(f"{command} of {address}")
    if several:
        answers.try_place(address.directory)
        return job.execute(args.workers, take(command_line, "--workers")[1])

    def work(workers: Workers) -> int:
        if workers.rank == 0:
            answers.try_place(address.directory)
        for answer in question(args, address, workers):
            if workers.rank == 0:
                path, again = answers.write(address.directory, answer), command_of("report", address.directory.path)
                show(args, address, answer)
                console.print(f"saved: {path}; draw it with: {again}")
        return 0

    return as_worker(work, command_line, stopped)


def load(address: StateAddress, workers: Workers) -> RunState:
    """Loads a state of a run with its model, data and objective. A signal ends the program immediately meanwhile."""
    from noiseless.ask.state import load_state

    with interruptible():
        return load_state(address, workers)


def as_worker(work: Callable[[Workers], int], command_line: list[str], stopped: str) -> int:
    """Calls a function as one worker of a job, or as the only process.

    Args:
        work: (workers) -> exit code.
        command_line: command and arguments, for the message after a signal.
        stopped: that message, printed before the command.

    Returns:
        The exit code.
    """
    from noiseless.objective.workers import SweepStoppedError
    from noiseless.run.speed import keep_memory
    from noiseless.run.train import Interrupted

    keep_memory()
    with job.joined() as workers:
        try:
            return work(workers)
        except (SweepStoppedError, Interrupted):
            console.print(f"stopped; {stopped}: noiseless {shlex.join(command_line)}")
            return INTERRUPTED
