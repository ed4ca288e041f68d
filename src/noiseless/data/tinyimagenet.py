"""Tiny ImageNet (Stanford CS231n): 200 classes at 64x64, read from the published zip or from its unpacked folder."""

from __future__ import annotations

import posixpath
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from noiseless.data import sources
from noiseless.data.download import fetch
from noiseless.data.pictures import ImageFiles, Part
from noiseless.data.sources import Source
from noiseless.plain import read_file

ANNOTATIONS = "val/val_annotations.txt"
"""lines of FILE, CLASS and a bounding box, separated by tabs"""


class _Files(Protocol):
    """The files of the set, named by their path below its folder."""

    location: str
    """of the set, for error messages"""

    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path, self.location = path, str(path)

    def names(self) -> list[str]:
        files = [path.relative_to(self.path).as_posix() for path in self.path.glob("train/*/images/*")]
        return [*files, *(f"val/images/{path.name}" for path in self.path.glob("val/images/*"))]

    def read(self, name: str) -> bytes:
        return read_file(self.path / name)


class _Zip:
    """The files of the zip, read in memory. Members outside the expected folder are ignored."""

    def __init__(self, path: Path, source: Source) -> None:
        source.refuse_other(path)
        self.location, self.prefix = str(path), f"{source.unpacked}/"
        try:
            self.archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        self.lock = threading.Lock()  # ZipFile's count of open readers is not thread-safe

    def names(self) -> list[str]:
        members = self.archive.namelist()
        normal = [
            member for member in members if member.startswith(self.prefix) and posixpath.normpath(member) == member
        ]
        return [member.removeprefix(self.prefix) for member in normal]

    def read(self, name: str) -> bytes:
        try:
            with self.lock:
                return self.archive.read(self.prefix + name)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"{self.location}: {name} cannot be read: {error}") from None


def find(directory: Path, source: Source | None = None) -> Path | None:
    """The path of the set's folder in a directory, else that of its archive; None if neither exists."""
    return sources.present(directory, source or sources.TINY_IMAGENET)


def get(directory: Path) -> None:
    """Downloads the set if it is missing, or checks the archive that is there.

    Args:
        directory: of data sets.

    Raises:
        ValueError: if it cannot be downloaded, or is not the published one.
    """
    path = find(directory)
    if path is None:
        fetch(sources.TINY_IMAGENET, directory)
    elif path.name == sources.TINY_IMAGENET.file:
        sources.TINY_IMAGENET.refuse_other(path)


def tiny_imagenet(directory: Path, pixels: int | None = None, source: Source | None = None) -> ImageFiles:
    """Opens the set, and downloads it first if it is missing.

    Args:
        directory: of data sets.
        pixels: see `ImageFiles`.
        source: the archive; None: the published one.

    Returns:
        The training images, with classes and files in the order of their names, and the validation images as test
        images, in the order of their annotations (the labels of the published test images are not public).

    Raises:
        ValueError: if it can be neither found nor downloaded, or is not as published.
    """
    source = source or sources.TINY_IMAGENET
    path = find(directory, source) or fetch(source, directory)
    files: _Files = _Folder(path) if path.is_dir() else _Zip(path, source)
    names = sorted(files.names())
    train = [name for name in names if name.startswith("train/") and name.count("/") == 3 and not name.endswith("/")]
    class_numbers = {class_name: k for k, class_name in enumerate(sorted({name.split("/")[1] for name in train}))}
    if not train:
        raise ValueError(f"{files.location} lacks train/CLASS/images")
    present = set(names)
    test, labels = [], []
    for line in _annotations(files):
        file, label, *_ = [*line.split("\t"), ""]
        if f"val/images/{file}" not in present or label not in class_numbers:
            raise ValueError(f"{files.location}: {ANNOTATIONS} names {line!r}, but that image or class is not there")
        test.append(f"val/images/{file}")
        labels.append(class_numbers[label])
    if not test:
        raise ValueError(f"{files.location}: {ANNOTATIONS} names no images")
    return ImageFiles(
        "tinyimagenet",
        _part(files, train, [class_numbers[name.split("/")[1]] for name in train]),
        _part(files, test, labels),
        pixels,
    )


def _annotations(files: _Files) -> list[str]:
    try:
        text = files.read(ANNOTATIONS).decode()
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{files.location} lacks {ANNOTATIONS}: {error}") from None
    return [line for line in text.splitlines() if line]


def _part(files: _Files, names: Sequence[str], labels: list[int]) -> Part:
    def read(number: int) -> bytes:
        return files.read(names[number])

    return Part([f"{files.location}/{name}" for name in names], np.array(labels, np.int64), read)
