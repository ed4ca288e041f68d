"""Files that are never half written: a temporary file is written, flushed to the disk and renamed.

A killed write leaves its temporary file, which `clear` removes once the lock of its directory is held.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from noiseless.system import alive

TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.tmp")
"""names of temporary files: of the file, and of the process that writes it"""
OLD = 3600.0
"""seconds after which a temporary file of another machine's process is taken for left behind"""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: a reader gets the old content or the new one, never a part.

    Args:
        path: of the file.
        content: of the file.

    Raises:
        OSError: naming the file, if it cannot be written; the old content is kept.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # a link that somebody else has put there would be followed
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # the error of a full disk names no file, others name the temporary one
        raise


def flush_directory(path: Path) -> None:
    """Flushes the names in a directory to the disk, so that a power cut does not undo a rename."""
    with contextlib.suppress(OSError):  # some file systems cannot, or need not; Windows does not open directories
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def try_place(directory: Path) -> None:
    """Writes and removes a file in a directory: permissions do not tell whether that is possible, as in /proc.

    Raises:
        OSError: if it is not.
    """
    probe = directory / ".probe"
    write_bytes(probe, b" ")
    probe.unlink(missing_ok=True)  # another process may try the directory at the same time


def clear(directory: Path, own: Callable[[str], bool]) -> None:
    """Removes the temporary files of writes that were killed.

    Args:
        directory: whose lock the caller holds.
        own: whether only the holder of the lock writes the file of that name, so that it is not being written now.
            Temporary files of others are removed if they are old and no process of their number exists.
    """
    for path in directory.glob(".*.tmp"):
        if not (parts := TEMPORARY.fullmatch(path.name)):
            continue
        with contextlib.suppress(OSError):
            if int(parts["process"]) == os.getpid():
                continue  # this process will write it again
            if own(parts["name"]) or (not alive(int(parts["process"])) and time.time() - path.stat().st_mtime > OLD):
                path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()
