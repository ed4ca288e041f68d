"""A lock with which one process at a time downloads or packs a data set, while other processes wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noiseless.data.home import NOWHERE, VARIABLE
from noiseless.exits import in_job
from noiseless.lock import locked
from noiseless.screen import print_line


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds the lock for writing a file. If another process holds it, waits until it is released.

    Args:
        path: of the file that is to be written; the lock file is beside it, and is never removed.

    Yields:
        Nothing. Check again whether the file exists, as another process may have written it in the meantime.

    Raises:
        ValueError: if there is no directory of data sets, see `home`.
    """

    def on_wait() -> None:
        if not in_job():  # in a job, the other process is usually another worker: no message is needed
            print_line(f"waiting for another process, which is writing {path}")

    if path.is_relative_to(NOWHERE):
        raise ValueError(f"there is no home directory for {path.name}: name a directory in {VARIABLE} or by --data-dir")
    with locked(path.with_name(f".{path.name}.lock"), on_wait):
        yield
