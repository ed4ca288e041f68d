"""A progress bar of an analysis: in a terminal by rich, in a notebook as a line of text, and elsewhere not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, cast

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from noiseless.objective.partial import Partial
from noiseless.objective.workers import Around, Workers
from noiseless.report.text import duration
from noiseless.screen import Screen

DELAY = 2.0
"""seconds of work before a bar appears by itself"""
APART = 0.2
"""smallest number of seconds between two updates of a line in a notebook"""


class Bar:
    """A bar that counts chunks of blocks, or steps; use it as a context, at whose end it disappears.

    Attributes:
        total: number of chunks; None: it is not known before the end.
        done: number of chunks that are computed.

    Args:
        what: name of the analysis.
        show: True: at once; None: after `DELAY` seconds, in a terminal or a notebook; False: never.
        unit: of what is counted.
    """

    def __init__(self, what: str, show: bool | None, unit: str = "chunks"):
        self._what, self._show, self._unit = what, show, unit
        self._console = Screen(stderr=True)
        self.total: int | None = None
        self.done = 0
        self._display: _Terminal | _Notebook | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._display is not None:
            self._display.close()

    def advance(self) -> None:
        """Counts one more chunk."""
        self.done += 1
        if self._display is None and self._appears():
            notebook = self._console.is_jupyter
            self._display = _Notebook(self._what, self._unit) if notebook else _Terminal(self._what, self._console)
        if self._display is not None:
            self._display.show(self.done, self.total, time.monotonic() - self._began)

    def _appears(self) -> bool:
        if self._show is not None:
            return self._show
        seen = self._console.is_terminal or self._console.is_jupyter
        return seen and time.monotonic() - self._began >= DELAY


class _Terminal:
    """A bar of rich on standard error."""

    def __init__(self, what: str, console: Screen):
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task(what, total=None)
        self._progress.start()

    def show(self, done: int, total: int | None, seconds: float) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        self._progress.stop()


class _Notebook:
    """A line of text, as bars of rich need a package that notebooks may lack."""

    def __init__(self, what: str, unit: str):
        from IPython.display import display  # a notebook has it

        self._what, self._unit, self._shown = what, unit, -APART
        self._handle: Any = cast("Any", display)(_text(what), raw=True, display_id=True)

    def show(self, done: int, total: int | None, seconds: float) -> None:
        if seconds - self._shown >= APART:
            self._shown = seconds
            count = f"{done}" if total is None else f"{done} of {total}"
            self._handle.update(_text(f"{self._what}: {count} {self._unit}, {duration(seconds)}"), raw=True)

    def close(self) -> None:
        self._handle.update(_text(""), raw=True)


def _text(line: str) -> dict[str, str]:
    return {"text/plain": line}


class Counted(Around):
    """Workers whose chunks are counted as they are computed.

    Args:
        workers: that compute.
        on_chunk: called after each chunk of this process.
    """

    def __init__(self, workers: Workers, on_chunk: Callable[[], None]):
        super().__init__(workers)
        self._on_chunk = on_chunk

    def share(self, partial: Partial) -> Iterator[int]:
        """The numbers of the chunks of this process.

        Yields:
            Chunk numbers.
        """
        for number in super().share(partial):
            yield number
            self._on_chunk()
