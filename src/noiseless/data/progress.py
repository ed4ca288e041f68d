"""What a user sees of a long download or pack: lines and a bar on standard error, of the process that does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]
"""(done so far) -> shown"""


def tell(text: str) -> None:
    """One line on standard error."""
    _console().print(text)


@contextmanager
def bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar in a terminal; elsewhere nothing.

    Args:
        title: what is being done.
        total: when it is done.
        unit: bytes or images.

    Yields:
        What to call with the amount that is done.
    """
    console = _console()
    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = TextColumn("{task.description}", markup=False), BarColumn(), amount, TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as shown:
        task = shown.add_task(title, total=total)
        yield lambda done: shown.update(task, completed=done)


def size(count: float) -> str:
    """A number of bytes as people read it: `170.5 MB`, in powers of 1,000."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _console() -> Console:
    """Made when it is needed, for standard error as it then is."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
