"""Progress of a download or a pack: a bar on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from noiseless.screen import Screen

Advance = Callable[[int], None]
"""called with the amount done so far"""


@contextmanager
def progress_bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    """A progress bar, shown in a terminal only.

    Args:
        title: what is being done.
        total: amount at the end.
        unit: "bytes" or "images".

    Yields:
        A function to call with the amount done so far.
    """
    console = Screen(stderr=True)  # a new one at each call, as `sys.stderr` may have been replaced
    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = TextColumn("{task.description}", markup=False), BarColumn(), amount, TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


def size(count: float) -> str:
    """A number of bytes as text such as `170.5 MB`, in powers of 1,000."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
