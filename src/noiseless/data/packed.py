"""Packed sets: all images as bytes in one file, memory-mapped, so that a worker reads only the pages of its blocks.

The file is a safetensors file with the tensors `y_train`, `y_test`, `x_train` and `x_test`, which any reader of the
format can open. Its metadata hold the statistics, the digest of the contents (`ImageSet.sha256`), and a seal, which is
the digest of the header itself. The file is written under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noiseless.data import statistics
from noiseless.data.images import Facts, ImageSet
from noiseless.data.packedheader import FORMAT, read_header, seal_of
from noiseless.data.progress import Advance, size
from noiseless.plain import parse

PAGE = 4096
"""bytes of a page; the header's length is a multiple of it"""
RESIDENT = 2**32
"""bytes of a set up to which it is moved to the device; larger ones stay mapped"""
NAMES = ("y_train", "y_test", "x_train", "x_test")
"""in the order in which they lie in the file: labels first, where int64 is aligned"""
DTYPES: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "U8": np.dtype("u1")}


@dataclass(frozen=True)
class Contents:
    """The contents of a packed file. The images are given as they are decoded, part by part."""

    name: str
    pixels: int | None
    shape: tuple[int, ...]
    """`[C, H, W]` of an image"""
    y_train: np.ndarray
    y_test: np.ndarray
    x_train: Iterable[np.ndarray]
    """parts uint8 `[n, C, H, W]`, iterated over once"""
    x_test: Iterable[np.ndarray]
    """parts uint8 `[n, C, H, W]`, iterated over once"""
    source: str = ""
    """see `ImageFiles.source`"""

    def bytes(self) -> int:
        """Bytes of all pixels."""
        return (len(self.y_train) + len(self.y_test)) * int(np.prod(self.shape))


def place(directory: Path, name: str, pixels: int | None) -> Path:
    """The path of a set's packed file in the directory of data sets."""
    kind, _, path = name.partition(":")
    slug = f"{kind}-{Path(path).name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}" if path else kind
    return directory / "packed" / f"{slug}{f'-{pixels}px' if pixels else ''}.safetensors"


def write(path: Path, contents: Contents, advance: Advance = lambda done: None) -> None:
    """Writes a packed set. The caller must hold the lock of the file.

    Args:
        path: of the file.
        contents: images, labels and name.
        advance: called with the number of images written so far.

    Raises:
        ValueError: if the disk has too little free space.
        OSError: if the file cannot be written. An existing file of that name is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # left by a process that was killed
    if (free := shutil.disk_usage(path.parent).free) < contents.bytes():
        raise ValueError(
            f"{contents.name} takes {size(contents.bytes())} when packed, but {path.parent} has {size(free)} free: make"
            " room, or name another place with --data-dir or NOISELESS_DATA"
        )
    entries, data_bytes = _entries(contents)
    header_bytes = -(-(PAGE + len(json.dumps(contents.name))) // PAGE) * PAGE  # rounded up to whole pages
    try:
        with temporary.open("w+b") as file:
            facts = _write_tensors(file, header_bytes, entries, contents, advance)
            metadata = {"format": FORMAT, "name": contents.name, "source": contents.source}
            metadata |= {
                "pixels": json.dumps(contents.pixels),
                "mean": json.dumps(facts.mean),
                "std": json.dumps(facts.std),
            }
            metadata |= {"sha256": facts.sha256, "labels": _digest(contents.y_train, contents.y_test)}
            header = {"__metadata__": metadata, **entries}
            metadata["seal"] = seal_of(header)
            text = json.dumps(header, separators=(",", ":")).encode().ljust(header_bytes - 8)
            assert len(text) == header_bytes - 8
            file.seek(0)
            file.write(len(text).to_bytes(8, "little") + text)
            file.flush()
            assert os.fstat(file.fileno()).st_size == header_bytes + data_bytes
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def _entries(contents: Contents) -> tuple[dict[str, Any], int]:
    """The header's entries of the tensors, and the bytes of all tensors together."""
    entries: dict[str, Any] = {}
    end = 0
    for name in NAMES:
        labels = contents.y_train if name.endswith("train") else contents.y_test
        dtype, shape = ("I64", [len(labels)]) if name[0] == "y" else ("U8", [len(labels), *contents.shape])
        start, end = end, end + int(np.prod(shape)) * DTYPES[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return entries, end


def _write_tensors(
    file: Any, header_bytes: int, entries: dict[str, Any], contents: Contents, advance: Advance
) -> Facts:
    """Writes the tensors in the order of `ImageSet.sha256`, and returns their statistics and digest."""
    total, histograms, done = hashlib.sha256(), [], 0
    for name in ("x_train", "y_train", "x_test", "y_test"):
        start, end = entries[name]["data_offsets"]
        file.seek(header_bytes + start)
        total.update(str(entries[name]["shape"]).encode())
        part = getattr(contents, name)
        for chunk in (part,) if name[0] == "y" else part:
            array = np.ascontiguousarray(chunk, DTYPES[entries[name]["dtype"]])
            file.write(array)
            total.update(array.data)
            if name[0] == "x":
                done += len(array)
                advance(done)
            if name == "x_train":
                histograms += [
                    statistics.histogram(array[k : k + statistics.CHUNK])
                    for k in range(0, len(array), statistics.CHUNK)
                ]
        assert file.tell() == header_bytes + end, f"{name} has another length than its labels"
    return Facts(*statistics.moments(histograms), total.hexdigest())


def read(path: Path, name: str, pixels: int | None) -> ImageSet:
    """Opens a packed set, with the labels in memory and the images memory-mapped.

    The size of the file, the header and the labels are checked; the images are not, see `verify`.

    Args:
        path: of the file.
        name: of the set that the file must hold.
        pixels: size of the images that the file must hold; None: their original size.

    Returns:
        The set with its recorded facts.

    Raises:
        ValueError: if the file is cut off, damaged, or holds another set.
    """
    try:
        header, start = read_header(path)
        metadata = header["__metadata__"]
        if (metadata["name"], parse(metadata["pixels"])) != (name, pixels):
            raise ValueError(f"it holds {metadata['name']}")
        ends = [header[key]["data_offsets"][1] for key in NAMES]
        if (length := path.stat().st_size) != start + ends[-1]:
            raise ValueError(f"it has {length:,} bytes, not {start + ends[-1]:,}")
        mapped = {key: _mapped(path, start, header[key]) for key in NAMES}
        y_train, y_test = (np.array(mapped[key]) for key in NAMES[:2])
        if _digest(y_train, y_test) != metadata["labels"]:
            raise ValueError("its labels are not those that were written")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, or no packed set ({error}). {_remedy(name, pixels)}") from None
    facts = Facts(parse(metadata["mean"]), parse(metadata["std"]), metadata["sha256"])
    x_train, x_test = (_tensor(mapped[key]) for key in NAMES[2:])
    return ImageSet(
        name, x_train, torch.from_numpy(y_train), x_test, torch.from_numpy(y_test),
        resident=ends[-1] <= RESIDENT, facts=facts,
    )  # fmt: skip


def verify(path: Path, dataset: ImageSet, pixels: int | None) -> None:
    """Reads all bytes of a packed set and compares them with their recorded digest.

    Args:
        path: of the file.
        dataset: the set, as `read` returned it.
        pixels: see `read`.

    Raises:
        ValueError: if the contents have changed since they were written.
    """
    digest = replace(dataset, facts=None).sha256()
    if digest != dataset.sha256():
        remedy = _remedy(dataset.name, pixels)
        raise ValueError(f"{path} has changed since it was written (sha256 {digest}, not {dataset.sha256()}). {remedy}")


def _remedy(name: str, pixels: int | None) -> str:
    return f"Remove it; noiseless data pack {name}{f' --pixels {pixels}' if pixels else ''} writes it again"


def _mapped(path: Path, start: int, entry: dict[str, Any]) -> np.ndarray:
    offset = start + entry["data_offsets"][0]
    return np.memmap(path, DTYPES[entry["dtype"]], "r", offset, tuple(entry["shape"]))


def _tensor(mapped: np.ndarray) -> Tensor:
    with warnings.catch_warnings():  # torch warns that the array is not writable, which is intended
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(mapped)


def _digest(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array, "<i8").tobytes() for array in arrays)).hexdigest()
