"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, *Learning multiple layers of features from tiny images*).

A set is read from its published archive or from the unpacked folder, in the Python or the binary version. An archive is
not unpacked: the members with expected names are read in memory, and others are not read at all.
"""

from __future__ import annotations

import posixpath
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from noiseless.data import pickled, sources
from noiseless.data.download import fetch
from noiseless.data.images import ImageSet
from noiseless.data.sources import Source
from noiseless.plain import read_file

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
"""bytes of an image: the red plane, the green and the blue"""

Labelled = tuple[np.ndarray, np.ndarray]
"""images uint8 `[n, 3072]` and labels int64 `[n]`"""


@dataclass(frozen=True)
class Version:
    """A published version of a set, Python or binary."""

    source: Source
    train: tuple[str, ...]
    """files of training images, in their order"""
    test: tuple[str, ...]
    """files of test images, in their order"""
    parse: Callable[[bytes, str], Labelled]
    """(content of a file, its name for error messages) -> images and labels"""


@dataclass(frozen=True)
class Cifar:
    """CIFAR-10 or CIFAR-100."""

    name: str
    classes: int
    versions: tuple[Version, ...]
    """the first is the one that is downloaded"""

    def find(self, directory: Path) -> Path | None:
        """The path of a version's folder in a directory, else that of an archive; None if there is neither."""
        return sources.present(directory, *(version.source for version in self.versions))

    def fetch(self, directory: Path) -> None:
        """Downloads the set if it is missing, or checks the archive that is there.

        Args:
            directory: of data sets.

        Raises:
            ValueError: if it cannot be downloaded, or is not the published one.
        """
        path = self.find(directory)
        if path is None:
            fetch(self.versions[0].source, directory)
        for version in self.versions:
            if path == directory / version.source.file:
                version.source.refuse_other(path)

    def read(self, directory: Path) -> ImageSet:
        """Reads the set, and downloads it first if it is missing.

        Args:
            directory: of data sets.

        Returns:
            The images `[3, 32, 32]` in their published order; CIFAR-100 with its 100 fine classes.

        Raises:
            ValueError: if it can be neither found nor downloaded, or is not as published.
        """
        path = self.find(directory) or fetch(self.versions[0].source, directory)
        version = next(v for v in self.versions if path.name in (v.source.unpacked, v.source.file))
        names = (*version.train, *version.test)
        contents = (
            _read_folder(path, names)
            if path.name == version.source.unpacked
            else _read_archive(path, version.source, names)
        )
        parts = []
        for files in (version.train, version.test):
            batches = [self._checked(version.parse(contents[f], f"{path}: {f}"), f"{path}: {f}") for f in files]
            parts += [torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*batches, strict=True)]
        x_train, y_train, x_test, y_test = parts
        return ImageSet(self.name, x_train.reshape(-1, *SHAPE), y_train, x_test.reshape(-1, *SHAPE), y_test)

    def _checked(self, labelled: Labelled, place: str) -> Labelled:
        images, labels = labelled
        if not len(labels) or images.shape != (len(labels), PIXELS):
            raise ValueError(f"{place} holds {len(labels)} labels for images of shape {list(images.shape)}")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(f"{place} holds the label {labels.max()}; there are {self.classes} classes")
        return labelled


def _read_folder(path: Path, names: Sequence[str]) -> dict[str, bytes]:
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: unpack the archive again, or remove the folder")
    return {name: read_file(path / name) for name in names}


def _read_archive(path: Path, source: Source, names: Sequence[str]) -> dict[str, bytes]:
    source.refuse_other(path)
    contents = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folder, name = posixpath.split(posixpath.normpath(member.name))
                if folder == source.unpacked and name in names and member.isfile():
                    file = archive.extractfile(member)
                    assert file is not None
                    contents[name] = file.read()
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    missing = [name for name in names if name not in contents]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return contents


def _python(key: str, content: bytes, place: str) -> Labelled:
    """Parses a file of the Python version: a pickled dictionary with `data` and a list of labels under `key`."""
    dictionary = pickled.read(content, place)
    images, labels = dictionary.get("data"), dictionary.get(key)
    if not isinstance(images, np.ndarray) or not isinstance(labels, list):
        raise ValueError(f"{place} lacks data or {key}; it holds {', '.join(dictionary) or 'nothing'}")
    if not all(type(label) is int and abs(label) < 2**31 for label in labels):
        raise ValueError(f"{place}: {key} must hold whole numbers")
    return images, np.array(labels, np.int64)


def _binary(labels: int, content: bytes, place: str) -> Labelled:
    """Parses a file of the binary version: records of one or two label bytes, the fine label last, and an image."""
    length = labels + PIXELS
    if len(content) % length:
        raise ValueError(f"{place} has {len(content):,} bytes, no multiple of {length}: it was cut off")
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    return records[:, labels:], records[:, labels - 1].astype(np.int64)


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

CIFAR10 = Cifar(
    "cifar10",
    10,
    (
        Version(sources.CIFAR10, _BATCHES, ("test_batch",), partial(_python, "labels")),
        Version(
            sources.CIFAR10_BINARY, tuple(f"{name}.bin" for name in _BATCHES), ("test_batch.bin",), partial(_binary, 1)
        ),
    ),
)
CIFAR100 = Cifar(
    "cifar100",
    100,
    (
        Version(sources.CIFAR100, ("train",), ("test",), partial(_python, "fine_labels")),
        Version(sources.CIFAR100_BINARY, ("train.bin",), ("test.bin",), partial(_binary, 2)),
    ),
)
