"""Reads the pickled dictionaries of CIFAR without running any code of the pickle's choice.

A pickle is a program: it names functions and calls them. The published files name three of numpy's, to build arrays
of bytes. These are replaced by the stand-ins below, which only hold data; any other name is refused before it is
looked up.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np

CONTAINERS = {
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE", "LIST", "EMPTY_LIST", "DICT", "EMPTY_DICT", "FROZENSET",
    "EMPTY_SET", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST",
}  # fmt: skip
"""instructions that make a container or an object"""
MOST_CONTAINERS = 1000
"""of such instructions in a file; the published ones have about ten, as labels are one list"""


class _Dtype:
    """Stands for `numpy.dtype`: holds its name."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: Any) -> None:
        """Ignores byte order and the like, which do not matter for bytes."""


class _ByteArray:
    """Stands for `numpy.ndarray`: holds an array of bytes."""

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, columns_first, content = state
        self.array = _array(content, dtype, shape, "F" if columns_first else "C")


def _array(content: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", "uint8"):
        raise pickle.UnpicklingError("it holds an array of something else than bytes")
    if isinstance(content, str):
        content = content.encode("latin1")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: Any) -> _ByteArray:
    return _ByteArray()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _ByteArray:
    placeholder = _ByteArray()
    placeholder.array = _array(content, dtype, shape, order)
    return placeholder


def _encode(text: str, encoding: str) -> bytes:
    """Stands for `codecs.encode`, in which Python 3 wraps bytes for protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


STANDS_FOR: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _ByteArray,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):  # noqa: S301  # it resolves no names but those above
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; no module is imported."""
        if (module, name) not in STANDS_FOR:
            raise pickle.UnpicklingError(f"it would run {module}.{name}, which no published file does")
        return STANDS_FOR[module, name]


def _refuse_nested(content: bytes) -> None:
    """Raises if a pickle makes more containers than a published file: hashing a deep nest of them ends the process."""
    made = 0
    for operation, _, _ in pickletools.genops(content):
        made += operation.name in CONTAINERS
        if made > MOST_CONTAINERS:
            raise pickle.UnpicklingError(f"it makes more than {MOST_CONTAINERS} lists, tuples and dictionaries")


def read(content: bytes, place: str) -> dict[str, Any]:
    """Reads a pickled dictionary of plain values and arrays of bytes.

    Args:
        content: of the file.
        place: name of the file, for error messages.

    Returns:
        The dictionary, with keys as text and arrays as uint8.

    Raises:
        ValueError: if the file is cut off or damaged, names a function that published files do not name, or holds no
            dictionary.
    """
    try:
        _refuse_nested(content)
        dictionary = _Reader(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # damaged pickles may raise anything
        raise ValueError(f"{place} cannot be read: {str(error) or type(error).__name__}") from None
    if not isinstance(dictionary, dict):
        raise ValueError(f"{place} holds a {type(dictionary).__name__}, not a dictionary")
    plain = {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in dictionary.items()}
    return {key: value.array if isinstance(value, _ByteArray) else value for key, value in plain.items()}
