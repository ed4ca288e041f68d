"""Reading a run while it is trained: without torch, without its lock, and without writing to its directory."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

from noiseless.files.outside import refuse_outside
from noiseless.plain import NotPlainError, open_file, parse, read_file, unsealed
from noiseless.recipes.config import Config
from noiseless.system import alive

Row = dict[str, Any]
CONFIG = "config.json"
REMEDY = (
    "restore it from a copy, use the version of noiseless that environment.json beside it names, or start a new run"
)
LAST = 2**53
"""steps are below this number"""
TAIL = 4096
"""number of bytes that are compared to tell whether a file was continued or replaced"""


def find(path: Path) -> Path:
    """The path, if it is the directory of a run.

    Returns:
        The path.

    Raises:
        ValueError: if it is not the directory of a run, or if a link in it leads out of it.
    """
    if not (path / "config.json").is_file():
        problem = "is not a run: it has no config.json" if path.exists() else "does not exist"
        if (path / "lock").exists():
            problem += f" (it ended before its first step: noiseless train --run-dir {path} starts it again)"
        raise ValueError(f"{path} {problem}; give the directory that noiseless train has printed")
    refuse_outside(path)
    return path


def config(path: Path) -> Config:
    """The config of the run at a path.

    Returns:
        The config, resolved.

    Raises:
        ValueError: if `config.json` is damaged, holds a value that no run can have, or was made by another version.
    """
    file = path / CONFIG
    try:
        values = Config.from_json(unsealed(parse(read_file(file))))
        values.check()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}; restore it from a copy") from None
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}; {REMEDY}") from None
    return values


class Followed:
    """A run whose record is read as it grows. Each `look` reads what is new.

    Args:
        path: of the run's directory.
    """

    def __init__(self, path: Path):
        self.path = find(path)
        self.recipe = config(path).recipe
        self.rows: list[Row] = []
        """rows in the order of steps, without lists and nested values; None for a number that is not finite"""
        self.damaged = 0
        """number of lines that are not rows"""
        self.ended = False
        """whether the final parameters are written"""
        self.holder: int | None = None
        """process on this machine that has locked the run, or None"""
        self.written: float | None = None
        """time at which the record was last written, in seconds since 1970"""
        self._read = 0  # number of bytes of the record that were read
        self._tail = b""  # the last of these bytes
        self._rest = b""  # bytes after the last complete line

    def look(self) -> None:
        """Reads what is new since the last look; reads from the start if a resumed run has removed rows.

        Raises:
            ValueError: if the directory is gone.
        """
        self.ended = (self.path / "model.safetensors").exists()  # first: the last rows were written before it
        self.holder = _holder(self.path / "lock")
        try:
            with open_file(self.path / "metrics.jsonl") as file:
                self._read_on(file)
        except FileNotFoundError:
            if not self.path.is_dir():
                raise ValueError(f"{self.path} is gone: it was removed or renamed") from None
            self._forget()
            self.written = None

    def _read_on(self, file: BinaryIO) -> None:
        """Reads the record from where the last look ended."""
        status = os.fstat(file.fileno())
        file.seek(max(0, self._read - len(self._tail)))
        # a resume replaces the file; its new rows differ at least in their seconds
        if status.st_size < self._read or file.read(len(self._tail)) != self._tail:
            self._forget()
            file.seek(0)
        new = file.read()
        self.written = status.st_mtime
        self._read += len(new)
        self._tail = (self._tail + new)[-TAIL:]
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            self._add(line)

    def _forget(self) -> None:
        """Drops all rows, to read the record from its start."""
        self.rows, self.damaged = [], 0
        self._read, self._tail, self._rest = 0, b"", b""

    def _add(self, line: bytes) -> None:
        """Adds the row of a line; rows of the same step and later ones are dropped, because they were repeated."""
        row = _row(line)
        if row is None:
            self.damaged += bool(line.strip())
            return
        while self.rows and self.rows[-1]["step"] >= row["step"]:
            self.rows.pop()
        self.rows.append(row)


def _row(line: bytes) -> Row | None:
    """The numbers in a line; None if it is not a row."""
    row = parsed_row(line)
    if row is None:
        return None
    numbers = {name: value for name, value in row.items() if value is None or type(value) in (int, float)}
    return {name: None if value is None or not math.isfinite(value) else value for name, value in numbers.items()}


def parsed_row(line: bytes) -> Row | None:
    """All values in a line of the record; None if it is not a row."""
    try:
        row: Any = parse(line, finite=False)
    except NotPlainError:
        return None
    return row if isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] < LAST else None


def _holder(lock: Path) -> int | None:
    """The process that holds a lock file, from the kernel's list of locks: trying to lock it would disturb the run."""
    try:
        status = lock.stat()
        written = lock.read_text().strip()
    except OSError:
        return None
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:  # without that list: the process whose number is in the file, if it is alive
        return int(written) if written.isdecimal() and alive(int(written)) else None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    for line in lines:  # 1: FLOCK  ADVISORY  WRITE 4242 08:01:1572874 0 EOF
        parts = line.split()
        if len(parts) < 6 or parts[1] != "FLOCK":
            continue
        listed_device, _, inode = parts[5].rpartition(":")
        # layered file systems report another device than the list does; then the number in the file decides
        if inode == str(status.st_ino) and (listed_device == device or parts[4] == written):
            return int(parts[4])
    return None
