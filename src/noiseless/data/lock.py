"""One process at a time: the workers of a job find a set together, and one of them fetches or packs it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noiseless.data.progress import tell


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock of a file that is to be made, and waits for whoever holds it; it goes with the process.

    Args:
        path: of the file; the lock lies beside it, and stays there.

    Yields:
        Nothing. Whoever has waited looks again whether the file is there by now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if "RANK" not in os.environ:  # the workers of a job know of each other
                tell(f"waiting for another process, which makes {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
