"""Reads the pickled dictionaries of CIFAR without running anything that a pickle may ask for.

A pickle is a program: it names functions and calls them. The published files name three of numpy's, to build arrays
of bytes. In their place stand the few lines below, which hold data alone; any other name is refused before it is
looked up.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np


class _Kind:
    """Stands for `numpy.dtype`: holds the name of the type."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like, which bytes do not have."""


class _Bytes:
    """Stands for `numpy.ndarray`: holds an array of bytes."""

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, columns_first, content = state
        self.array = _array(content, kind, shape, "F" if columns_first else "C")


def _array(content: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(kind, _Kind) or kind.name not in ("u1", "uint8"):
        raise pickle.UnpicklingError("it holds an array of something else than bytes")
    if isinstance(content, str):
        content = content.encode("latin1")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _Bytes:
    return _Bytes()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> _Bytes:
    placeholder = _Bytes()
    placeholder.array = _array(content, kind, shape, order)
    return placeholder


def _encode(text: str, encoding: str) -> bytes:
    """Stands for `codecs.encode`, in which Python 3 wraps bytes for protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


STANDS_FOR: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Kind,
    ("numpy", "ndarray"): _Bytes,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):  # noqa: S301  # it finds no class but those above
    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; no module is imported."""
        if (module, name) not in STANDS_FOR:
            raise pickle.UnpicklingError(f"it would run {module}.{name}, which no published file does")
        return STANDS_FOR[module, name]


def read(content: bytes, place: str) -> dict[str, Any]:
    """A pickled dictionary of plain values and arrays of bytes.

    Args:
        content: the file.
        place: its name, for errors.

    Returns:
        The dictionary, its keys as text; arrays are uint8.

    Raises:
        ValueError: if the file is cut off or damaged, names what has no place in it, or holds something else.
    """
    try:
        dictionary = _Reader(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # damaged pickles raise whatever the damaged opcode comes to
        raise ValueError(f"{place} cannot be read: {str(error) or type(error).__name__}") from None
    if not isinstance(dictionary, dict):
        raise ValueError(f"{place} holds a {type(dictionary).__name__}, not a dictionary")
    plain = {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in dictionary.items()}
    return {key: value.array if isinstance(value, _Bytes) else value for key, value in plain.items()}
