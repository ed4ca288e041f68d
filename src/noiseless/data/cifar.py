"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, *Learning multiple layers of features from tiny images*).

Read as published: the archive, or the folder that it holds; the Python version, or the binary one. Nothing is unpacked:
an archive's members are read in memory, and those whose names are not expected are not read at all.
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

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
"""bytes of an image: the red plane, the green and the blue"""

Labelled = tuple[np.ndarray, np.ndarray]
"""uint8 `[n, 3072]`, int64 `[n]`"""


@dataclass(frozen=True)
class Form:
    """A form in which a set is published."""

    source: Source
    train: tuple[str, ...]
    """files of training images, in their order"""
    test: tuple[str, ...]
    parse: Callable[[bytes, str], Labelled]
    """(content, place) -> images and labels"""


@dataclass(frozen=True)
class Cifar:
    """One of the two sets."""

    name: str
    classes: int
    forms: tuple[Form, ...]
    """the first is the one that is downloaded"""

    def place(self, directory: Path) -> Path | None:
        """Where the set is, folders before archives; None: not in this directory."""
        folders = (directory / form.source.unpacked for form in self.forms)
        archives = (directory / form.source.file for form in self.forms)
        return next((path for path in (*folders, *archives) if path.exists()), None)

    def fetch(self, directory: Path) -> None:
        """Downloads the set if it is not there; an archive that is there is checked.

        Args:
            directory: of data sets.

        Raises:
            ValueError: if it cannot be downloaded, or is not the published one.
        """
        path = self.place(directory)
        if path is None:
            fetch(self.forms[0].source, directory)
        for form in self.forms:
            if path == directory / form.source.file:
                form.source.refuse_other(path)

    def read(self, directory: Path) -> ImageSet:
        """The set, downloaded if it is not there.

        Args:
            directory: of data sets.

        Returns:
            The images `[3, 32, 32]` in their published order; CIFAR-100 with its 100 fine classes.

        Raises:
            ValueError: if it can be neither found nor downloaded, or is not as published.
        """
        path = self.place(directory) or fetch(self.forms[0].source, directory)
        form = next(item for item in self.forms if path.name in (item.source.unpacked, item.source.file))
        wanted = (*form.train, *form.test)
        files = _folder(path, wanted) if path.name == form.source.unpacked else _archive(path, form.source, wanted)
        parts = []
        for names in (form.train, form.test):
            batches = [self._checked(form.parse(files[item], f"{path}: {item}"), f"{path}: {item}") for item in names]
            parts += [torch.from_numpy(np.concatenate(item)) for item in zip(*batches, strict=True)]
        x_train, y_train, x_test, y_test = parts
        return ImageSet(self.name, x_train.reshape(-1, *SHAPE), y_train, x_test.reshape(-1, *SHAPE), y_test)

    def _checked(self, labelled: Labelled, place: str) -> Labelled:
        images, labels = labelled
        if not len(labels) or images.shape != (len(labels), PIXELS):
            raise ValueError(f"{place} holds {len(labels)} labels for images of shape {list(images.shape)}")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(f"{place} holds the label {labels.max()}; there are {self.classes} classes")
        return labelled


def _folder(path: Path, wanted: Sequence[str]) -> dict[str, bytes]:
    lacking = [name for name in wanted if not (path / name).is_file()]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}: unpack the archive anew, or remove the folder")
    return {name: (path / name).read_bytes() for name in wanted}


def _archive(path: Path, source: Source, wanted: Sequence[str]) -> dict[str, bytes]:
    source.refuse_other(path)
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folder, name = posixpath.split(posixpath.normpath(member.name))
                if folder == source.unpacked and name in wanted and member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None
                    files[name] = content.read()
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    lacking = [name for name in wanted if name not in files]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}")
    return files


def _python(key: str, content: bytes, place: str) -> Labelled:
    """A pickled dictionary with `data` and a list of labels."""
    dictionary = pickled.read(content, place)
    images, labels = dictionary.get("data"), dictionary.get(key)
    if not isinstance(images, np.ndarray) or not isinstance(labels, list):
        raise ValueError(f"{place} lacks data or {key}; it holds {', '.join(dictionary) or 'nothing'}")
    if not all(type(label) is int and abs(label) < 2**31 for label in labels):
        raise ValueError(f"{place}: {key} must hold whole numbers")
    return images, np.array(labels, np.int64)


def _binary(labels: int, content: bytes, place: str) -> Labelled:
    """Records of one or two label bytes, the fine label last, and an image."""
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
        Form(sources.CIFAR10, _BATCHES, ("test_batch",), partial(_python, "labels")),
        Form(
            sources.CIFAR10_BINARY, tuple(f"{each}.bin" for each in _BATCHES), ("test_batch.bin",), partial(_binary, 1)
        ),
    ),
)
CIFAR100 = Cifar(
    "cifar100",
    100,
    (
        Form(sources.CIFAR100, ("train",), ("test",), partial(_python, "fine_labels")),
        Form(sources.CIFAR100_BINARY, ("train.bin",), ("test.bin",), partial(_binary, 2)),
    ),
)
