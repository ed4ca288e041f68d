"""Locks between processes, by `filelock` (flock): a lock is released when its process ends, even by a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class HeldError(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Context manager that holds the lock of a file.

    Args:
        path: lock file; it and its directory are created if they are missing, and never removed.
        on_wait: called before waiting for another process; None: do not wait.

    Yields:
        Nothing.

    Raises:
        HeldError: if another process holds the lock and `on_wait` is None.
        OSError: if the file cannot be opened, or the file system has no locks.
    """
    from filelock import FileLock, Timeout  # not above: commands that only read have no lock

    lock = FileLock(path, thread_local=False, preserve_lock_file=True, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if on_wait is None:
            raise HeldError(f"another process holds {path}") from None
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
