"""Headers of packed sets (`packed.py`), read without torch: which sets are packed, and from which files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from noiseless.plain import open_file, parse

FORMAT = "noiseless image set 1"


def sets(directory: Path) -> Iterator[tuple[Path, str, int | None]]:
    """Lists the packed sets in the directory of data sets.

    Args:
        directory: of data sets.

    Yields:
        Path, name and pixels of each set; files that cannot be read are left out.
    """
    for path in sorted((directory / "packed").glob("*.safetensors")):
        with suppress(KeyError, TypeError, ValueError, OSError):
            metadata = read_header(path)[0]["__metadata__"]
            yield path, metadata["name"], parse(metadata["pixels"])


def source(path: Path) -> str:
    """The `ImageFiles.source` of a set at the time when it was packed.

    Args:
        path: of the packed file.

    Returns:
        The digest; empty if the file cannot be read.
    """
    try:
        return str(read_header(path)[0]["__metadata__"]["source"])
    except (KeyError, TypeError, ValueError, OSError):
        return ""


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Reads the header of a file and checks its seal; returns it with the position of the first tensor."""
    with open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < 2**20:
            raise ValueError("it has no header")
        header = parse(file.read(length))
    if not isinstance(header, dict):
        raise TypeError("its header is no dictionary")
    if header["__metadata__"]["format"] != FORMAT:
        raise ValueError("it is of another format")
    seal = header["__metadata__"].pop("seal")
    if seal != seal_of(header):
        raise ValueError("its header has changed since it was written")
    return header, 8 + length


def seal_of(header: dict[str, Any]) -> str:
    """Digest of a header without its seal."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
