"""One process at a time downloads or packs a data set; the other workers of the job wait for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noiseless.data.progress import tell
from noiseless.lock import locked


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock of a file that is to be made, and waits for the process that holds it.

    Args:
        path: of the file; the lock file is beside it, and stays there.

    Yields:
        Nothing. After waiting, look again whether the file exists by now.
    """

    def on_wait() -> None:
        if "RANK" not in os.environ:  # the workers of a job know of each other
            tell(f"waiting for another process, which makes {path}")

    with locked(path.with_name(f".{path.name}.lock"), on_wait):
        yield
