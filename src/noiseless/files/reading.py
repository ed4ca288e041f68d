"""What can be read of a run while it goes: without torch, without its lock, and without writing anything in it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

from noiseless.recipes.config import Config

Row = dict[str, Any]
TAIL = 4096
"""bytes by which what was read is recognised"""


def find(path: Path) -> Path:
    """The path, if it is the directory of a run.

    Returns:
        It.

    Raises:
        ValueError: if it is not.
    """
    if not (path / "config.json").is_file():
        what = "is not a run: it has no config.json" if path.exists() else "does not exist"
        if (path / "lock").exists():
            what += f" (it was cut off before its first step: noiseless train --run-dir {path} starts anew)"
        raise ValueError(f"{path} {what}; give the directory that noiseless train has printed")
    return path


def config(path: Path) -> Config:
    """The config of the run at a path.

    Returns:
        The config, resolved.

    Raises:
        ValueError: if `config.json` is damaged or was made by another version.
    """
    try:
        return Config.from_json(json.loads((path / "config.json").read_text()))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path / 'config.json'} cannot be read: {error}") from None


class Followed:
    """A run and what of its record has been read. Each `look` reads on.

    Args:
        path: of the run's directory.
    """

    def __init__(self, path: Path):
        self.path = find(path)
        self.recipe = config(path).recipe
        self.rows: list[Row] = []
        """by step; of each its numbers, None where one is not finite, without lists and nested values"""
        self.damaged = 0
        """lines that are no rows"""
        self.ended = False
        """whether its final parameters are there"""
        self.holder: int | None = None
        """process of this machine that holds the run; None where there is none"""
        self.written: float | None = None
        """when the record was written last, seconds since 1970"""
        self._read = 0  # bytes of the record
        self._tail = b""  # the last of them
        self._rest = b""  # of them, what is no whole line

    def look(self) -> None:
        """Reads what has come since the last look; from the start, where a resumed run has cut rows.

        Raises:
            ValueError: if the run is gone.
        """
        self.ended = (self.path / "model.safetensors").exists()  # first: the last rows were written before it
        self.holder = _holder(self.path / "lock")
        try:
            with (self.path / "metrics.jsonl").open("rb") as file:
                self._read_on(file)
        except FileNotFoundError:
            if not self.path.is_dir():
                raise ValueError(f"{self.path} is gone: it was removed or renamed") from None
            self._forget()
            self.written = None

    def _read_on(self, file: BinaryIO) -> None:
        found = os.fstat(file.fileno())
        file.seek(max(0, self._read - len(self._tail)))
        # a resume puts another file in its place, whose rows have at least other seconds
        if found.st_size < self._read or file.read(len(self._tail)) != self._tail:
            self._forget()
            file.seek(0)
        new = file.read()
        self.written = found.st_mtime
        self._read += len(new)
        self._tail = (self._tail + new)[-TAIL:]
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            self._take(line)

    def _forget(self) -> None:
        self.rows, self.damaged = [], 0
        self._read, self._tail, self._rest = 0, b"", b""

    def _take(self, line: bytes) -> None:
        """Adds one line's row; a step that is there already is written anew from it on."""
        row = _row(line)
        if row is None:
            self.damaged += bool(line.strip())
            return
        while self.rows and self.rows[-1]["step"] >= row["step"]:
            self.rows.pop()
        self.rows.append(row)


def _row(line: bytes) -> Row | None:
    """A line's numbers; None where it is no row."""
    try:
        row: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return {name: _finite(value) for name, value in row.items() if value is None or type(value) in (int, float)}


def _finite(value: float | None) -> float | None:
    try:
        return value if value is not None and math.isfinite(value) else None
    except OverflowError:  # a whole number beyond all floats
        return None


def _holder(lock: Path) -> int | None:
    """The process that holds a lock file, by the kernel's list of locks: trying the lock would take it for a moment."""
    try:
        found = lock.stat()
        written = lock.read_text().strip()
    except OSError:
        return None
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:  # no such list here: whether the process that wrote its number is there
        return int(written) if written.isdecimal() and _alive(int(written)) else None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 4242 08:01:1572874 0 EOF
        parts = line.split()
        if len(parts) < 6 or parts[1] != "FLOCK":
            continue
        place, _, inode = parts[5].rpartition(":")
        # layered file systems show another device than the list has; the number in the file decides there
        if inode == str(found.st_ino) and (place == device or parts[4] == written):
            return int(parts[4])
    return None


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
