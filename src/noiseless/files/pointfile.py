"""The file of a grid's points: a header that describes the grid, then one line of JSON for each point.

A line is written as soon as its point is computed, so a killed process loses only the unfinished point. An incomplete
last line is dropped when more points are added, and damaged lines are set aside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from noiseless.files.atomic import write_bytes
from noiseless.lock import HeldError, locked
from noiseless.plain import NotPlainError, parse, read_file, typed
from noiseless.screen import print_note

Index = tuple[int, ...]
"""index of a point on the grid: one number for each axis, from 0"""
Point = TypeVar("Point")
"""a dataclass of plain values"""


class PointFile(Generic[Point]):
    """The file of one landscape, or of another grid.

    Args:
        path: of the file.
        header: description of the grid, plain JSON values; a file with another header is refused.
        kind: class of the points.
        what: the grid in messages.

    Attributes:
        points: the points in the file.
    """

    def __init__(self, path: Path, header: dict[str, Any], kind: type[Point], what: str = "landscape"):
        self.path = path
        self.header = json.loads(json.dumps(header))
        self.points: dict[Index, Point] = {}
        self._kind, self._what = kind, what
        self._file: BinaryIO | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """A context in which this process has locked the file and can add points.

        Yields:
            Nothing.

        Raises:
            ValueError: if another process has locked the file, or if the file holds something else.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path.with_name(f".{self.path.name}.lock")))
            except HeldError:
                raise ValueError(
                    f"{self.path} is being filled by another process: wait for it, or choose another --name"
                ) from None
            content = read_file(self.path) if self.path.exists() else b""
            whole = self._read(content)
            if whole != content:
                write_bytes(self.path, whole)
            self._file = stack.enter_context(self.path.open("ab"))
            try:
                if not whole:
                    self._write({"asked": self.header})
                yield
            finally:
                self._file = None

    def add(self, index: Index, point: Point) -> None:
        """Writes a point that has been computed.

        Args:
            index: of the point.
            point: its values.
        """
        self._write({"at": list(index), **asdict(point)})  # type: ignore[call-overload]
        self.points[index] = point

    def _write(self, line: dict[str, Any]) -> None:
        """Writes a line to the disk at once."""
        assert self._file is not None
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise

    def _read(self, content: bytes) -> bytes:
        """Reads the header and the points in a file's content.

        Returns:
            The lines that hold them. Damaged lines are set aside, with a note; an incomplete last line is dropped.

        Raises:
            ValueError: if the first line is not the header of this grid.
        """
        lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
        damaged = []
        for number, line in enumerate(lines):
            try:
                self._read_line(number, parse(line, finite=False))
            except (LookupError, TypeError, AttributeError, NotPlainError):
                if number == 0:
                    raise ValueError(
                        f"{self.path} does not begin like the points of a {self._what}: {line[:40]!r}; remove the file,"
                        " or choose another --name"
                    ) from None
                damaged.append(line)
        if damaged:
            aside = self.path.with_suffix(".damaged")
            write_bytes(aside, b"".join(damaged))
            print_note(
                f"{self.path} has {len(damaged)} damaged lines, which are set aside in {aside} and computed again"
            )
        return b"".join(line for line in lines if line not in damaged)

    def _read_line(self, number: int, value: Any) -> None:
        """Compares the header, which is line 0; adds the point of any other line."""
        if number == 0:
            self._compare(value["asked"])
            return
        index = typed(tuple[int, ...], value["at"], "at")
        values = {name: part for name, part in value.items() if name != "at"}
        self.points[index] = typed(self._kind, values, "the point")

    def _compare(self, other: dict[str, Any]) -> None:
        """Raises if the header in the file is another one."""
        if other == self.header:
            return
        mine, theirs = _leaves(self.header), _leaves(other)
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        shown = [f"{name}: {theirs.get(name, 'none')} there, {mine.get(name, 'none')} here" for name in names[:3]]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise ValueError(
            f"{self.path} holds another {self._what} ({'; '.join(shown)}{more}): choose another --name, or remove the"
            " file"
        )


def _leaves(value: Any, name: str = "") -> dict[str, str]:
    """The values of a header as text, by dotted name."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and all(isinstance(part, dict) for part in value):
        items = ((str(k), part) for k, part in enumerate(value))  # type: ignore[assignment]
    elif isinstance(value, list):
        return {name: f"{len(value)} from {value[0]} to {value[-1]}" if value else "empty"}
    else:
        return {name: str(value)}
    return {leaf: text for k, part in items for leaf, text in _leaves(part, f"{name}.{k}" if name else k).items()}
