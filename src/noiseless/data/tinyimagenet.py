"""Tiny ImageNet (Stanford CS231n): 200 classes at 64x64, from its zip as published or from the folder that it holds."""

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
from noiseless.data.pictures import Part, Pictures
from noiseless.data.sources import Source

ANNOTATIONS = "val/val_annotations.txt"
"""lines of FILE, CLASS and a box, between tabulators"""


class _Files(Protocol):
    """The set's files by their names below its folder."""

    where: str

    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)

    def names(self) -> list[str]:
        files = [path.relative_to(self.path).as_posix() for path in self.path.glob("train/*/images/*")]
        return [*files, *(f"val/images/{path.name}" for path in self.path.glob("val/images/*"))]

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Zip:
    """Members are read in memory; those that are not below the expected folder are not read at all."""

    def __init__(self, path: Path, source: Source) -> None:
        source.refuse_other(path)
        self.where, self.below = str(path), f"{source.unpacked}/"
        try:
            self.file = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        self.one = threading.Lock()  # a zip's count of its readers is not safe among threads

    def names(self) -> list[str]:
        members = self.file.namelist()
        normal = [
            member for member in members if member.startswith(self.below) and posixpath.normpath(member) == member
        ]
        return [member.removeprefix(self.below) for member in normal]

    def read(self, name: str) -> bytes:
        try:
            with self.one:
                return self.file.read(self.below + name)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"{self.where}: {name} cannot be read: {error}") from None


def place(directory: Path, source: Source | None = None) -> Path | None:
    """Where the set is, the folder before the archive; None: not in this directory."""
    source = source or sources.TINY_IMAGENET
    paths = directory / source.unpacked, directory / source.file
    return next((path for path in paths if path.exists()), None)


def get(directory: Path) -> None:
    """Downloads the set if it is not there; an archive that is there is checked.

    Args:
        directory: of data sets.

    Raises:
        ValueError: if it cannot be downloaded, or is not the published one.
    """
    path = place(directory)
    if path is None:
        fetch(sources.TINY_IMAGENET, directory)
    elif path.name == sources.TINY_IMAGENET.file:
        sources.TINY_IMAGENET.refuse_other(path)


def tiny_imagenet(directory: Path, pixels: int | None = None, source: Source | None = None) -> Pictures:
    """The set, downloaded if it is not there.

    Args:
        directory: of data sets.
        pixels: see `Pictures`.
        source: the archive; None: the published one.

    Returns:
        Its training images, classes and files by the order of their names, and as test images those for validation, in
        the order of their annotations (the labels of the test images are not public).

    Raises:
        ValueError: if it can be neither found nor downloaded, or is not as published.
    """
    source = source or sources.TINY_IMAGENET
    path = place(directory, source) or fetch(source, directory)
    files: _Files = _Folder(path) if path.is_dir() else _Zip(path, source)
    names = sorted(files.names())
    train = [name for name in names if name.startswith("train/") and name.count("/") == 3 and not name.endswith("/")]
    numbers = {each: k for k, each in enumerate(sorted({name.split("/")[1] for name in train}))}
    if not train:
        raise ValueError(f"{files.where} lacks train/CLASS/images")
    held = set(names)
    test, labels = [], []
    for line in _annotations(files):
        file, known, *_ = [*line.split("\t"), ""]
        if f"val/images/{file}" not in held or known not in numbers:
            raise ValueError(f"{files.where}: {ANNOTATIONS} names {line!r}, but that image or class is not there")
        test.append(f"val/images/{file}")
        labels.append(numbers[known])
    if not test:
        raise ValueError(f"{files.where}: {ANNOTATIONS} names no images")
    return Pictures(
        "tinyimagenet",
        _part(files, train, [numbers[name.split("/")[1]] for name in train]),
        _part(files, test, labels),
        pixels,
    )


def _annotations(files: _Files) -> list[str]:
    try:
        text = files.read(ANNOTATIONS).decode()
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{files.where} lacks {ANNOTATIONS}: {error}") from None
    return [line for line in text.splitlines() if line]


def _part(files: _Files, names: Sequence[str], labels: list[int]) -> Part:
    def read(number: int) -> bytes:
        return files.read(names[number])

    return Part([f"{files.where}/{name}" for name in names], np.array(labels, np.int64), read)
