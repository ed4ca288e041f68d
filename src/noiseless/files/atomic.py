"""Files that are either whole or absent: written beside, flushed to the disk, and renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file in one stroke: whoever reads it finds the old content or the new, never a part.

    Args:
        path: of the file.
        content: all of it.

    Raises:
        OSError: naming the file, if it cannot be written; the old content is untouched.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk names no file, others the one beside
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, in one stroke."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()
