"""A lock with which one process at a time downloads or packs a data set, while other processes wait."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noiseless.data.progress import print_line
from noiseless.lock import locked


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds the lock for writing a file. If another process holds it, waits until it is released.

    Args:
        path: of the file that is to be written; the lock file is beside it, and is never removed.

    Yields:
        Nothing. Check again whether the file exists, as another process may have written it in the meantime.
    """

    def on_wait() -> None:
        if "RANK" not in os.environ:  # in a job, the other process is usually another worker: no message is needed
            print_line(f"waiting for another process, which is writing {path}")

    with locked(path.with_name(f".{path.name}.lock"), on_wait):
        yield
