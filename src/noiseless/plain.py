"""Plain values from files that anyone may have written: JSON with limits and types, and files that are files.

A file of a run is data: whatever is in it, reading it ends with values of the expected types or with one error. Lowest
layer: imports nothing else of noiseless.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from io import BufferedReader
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

DEEPEST = 64
"""levels of lists and dictionaries in each other; what noiseless writes has at most twelve"""
SEAL = "sha256"
"""key under which a sealed file holds the digest of its other values"""


class NotPlainError(ValueError):
    """Raised for content that is not the JSON that noiseless writes."""


class OtherFieldsError(NotPlainError):
    """Raised for a dataclass whose fields are not those of this version."""


def open_file(path: Path | str) -> BufferedReader:
    """Opens a file for reading, if it is a file; a pipe would be waited for, a device may have no end.

    Args:
        path: of the file; links are followed.

    Returns:
        The file.

    Raises:
        IsADirectoryError: if it is a directory.
        OSError: naming the path, if it cannot be opened or is not a regular file.
    """
    _refuse_other(path, os.stat(path).st_mode)  # noqa: PTH116  opening a device or pipe may have an effect
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        _refuse_other(path, os.fstat(descriptor).st_mode)  # it may have been exchanged
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _refuse_other(path: Path | str, mode: int) -> None:
    """Raises if a path is no regular file."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file but a device or pipe", str(path))


def read_file(path: Path | str) -> bytes:
    """The content of a file, see `open_file`.

    Returns:
        The bytes.
    """
    with open_file(path) as file:
        return file.read()


def real(path: Path) -> Path:
    """A path without links, absolute. Where a link leads to itself the rest stays as it is: opening it says so.

    Args:
        path: need not exist.

    Returns:
        The path.
    """
    return Path(os.path.realpath(path))


def parse(content: bytes | str, finite: bool = True) -> Any:
    """Parses JSON with limits: no key twice, no more than `DEEPEST` levels, no number beyond a float.

    Args:
        content: the text.
        finite: whether NaN and infinite numbers are refused; else a number beyond a float is read as infinite.

    Returns:
        The value.

    Raises:
        NotPlainError: saying what is wrong.
    """

    def whole(text: str) -> int | float:
        if len(text) > 300 and (len(text) > 400 or math.isinf(_as_float(int(text)))):
            return number(f"{text[0] if text[0] == '-' else ''}1e999")
        return int(text)

    def number(text: str) -> float:
        value = float(text)
        if finite and not math.isfinite(value):
            raise NotPlainError("it holds a number that is not finite, or beyond what a float can hold")
        return value

    try:
        text = content.decode() if isinstance(content, bytes) else content
        value = json.loads(
            text, object_pairs_hook=_distinct, parse_int=whole, parse_float=number, parse_constant=number
        )
    except RecursionError:
        raise NotPlainError("its lists and dictionaries are nested too deep") from None
    except UnicodeDecodeError as error:
        raise NotPlainError(f"it is no text in UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise NotPlainError(f"it is not JSON ({error.msg} in line {error.lineno}, column {error.colno})") from None
    _refuse_deep(value)
    return value


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their digest.

    Args:
        values: plain values by name.

    Returns:
        The values and, last, `sha256`.
    """
    plain = json.loads(json.dumps(values))  # as it will be read: keys are text
    return {**plain, SEAL: _digest(plain)}


def unsealed(value: Any) -> dict[str, Any]:
    """The values of a sealed file.

    Args:
        value: as parsed.

    Returns:
        The values without their digest.

    Raises:
        NotPlainError: if it is no dictionary, or if the digest is missing or does not fit.
    """
    if not isinstance(value, dict):
        raise NotPlainError(f"it holds {what(value)}, not values by name")
    values = {name: part for name, part in value.items() if name != SEAL}
    if SEAL not in value:
        raise NotPlainError(f"it has no {SEAL}, with which noiseless seals what it writes")
    if value[SEAL] != _digest(values):
        raise NotPlainError(f"its {SEAL} does not fit its content, so it has changed since it was written")
    return values


def typed(kind: Any, value: Any, name: str) -> Any:
    """A value of a type, from plain values: a dataclass with all its fields, a tuple, a choice, a number or text.

    Args:
        kind: type, as an annotation gives it.
        value: plain.
        name: of the value, for errors.

    Returns:
        The value.

    Raises:
        NotPlainError: naming the value that has another type.
        OtherFieldsError: naming what a dataclass lacks or does not know.
    """
    if is_dataclass(kind):
        return _dataclass(kind, value, name)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return typed(inner, value, name)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise NotPlainError(f"{name} must be one of {', '.join(arguments)}, not {what(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise NotPlainError(f"{name} must be a list, not {what(value)}")
        return tuple(typed(arguments[0], part, f"{name}[{number}]") for number, part in enumerate(value))
    fits, wanted = _SIMPLE[origin or kind]
    if not fits(value):
        raise NotPlainError(f"{name} must be {wanted}, not {what(value)}")
    return value


def what(value: Any) -> str:
    """A plain value in a few words, for errors."""
    if isinstance(value, dict):
        return f"{len(value)} values by name"
    return f"a list of {len(value)}" if isinstance(value, list) else repr(value)[:60]


_SIMPLE: dict[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int: (lambda value: type(value) is int, "a whole number"),
    float: (lambda value: type(value) in (int, float), "a number"),
    str: (lambda value: isinstance(value, str), "text"),
    dict: (lambda value: isinstance(value, dict), "values by name"),
}


def _dataclass(kind: Any, value: Any, name: str) -> Any:
    """A dataclass from values by name; the errors of its fields have the path of the field."""
    hints = get_type_hints(kind)
    by_field = value if isinstance(value, dict) else {}
    missing = [f.name for f in fields(kind) if f.name not in by_field]
    unknown = sorted(set(by_field) - set(hints))
    problems = [f"lacks {_few(missing)}"] if missing else []
    problems += [f"has {_few(unknown)}, which is not known"] if unknown else []
    if problems:
        raise OtherFieldsError(f"{name or 'it'} {' and '.join(problems)}")
    prefix = f"{name}." if name else ""
    return kind(**{field: typed(hints[field], part, f"{prefix}{field}") for field, part in by_field.items()})


def _few(names: list[str]) -> str:
    """The first four names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of values by name, in the order of their names."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of pairs; raises if a key is there twice, where a reader would drop one of the values."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise NotPlainError(f"it has the key {next(key for key in keys if keys.count(key) > 1)[:40]!r} twice")
    return values


def _refuse_deep(value: Any) -> None:
    """Raises if lists and dictionaries are nested deeper than `DEEPEST` levels."""
    level, depth = [value], 0
    while level := [part for inner in level for part in _parts(inner)]:
        depth += 1
        if depth > DEEPEST:
            raise NotPlainError(f"its lists and dictionaries are nested deeper than {DEEPEST} levels")


def _parts(value: Any) -> list[Any]:
    """The parts of a list or dictionary."""
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _as_float(value: int) -> float:
    """A whole number as a float, infinite where it is too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
