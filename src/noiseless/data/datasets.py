"""Data sets by name: in memory where they are small, memory-mapped from their packed file where they are not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from noiseless.data import packed
from noiseless.data.arrays import npz
from noiseless.data.catalogue import ENTRIES, FREE
from noiseless.data.folder import class_folders
from noiseless.data.home import home
from noiseless.data.images import ImageSet
from noiseless.data.lock import held
from noiseless.data.pictures import Pictures, resized
from noiseless.data.progress import bar, size, tell
from noiseless.errors import UnknownNameError

NAMES = (*ENTRIES, *FREE)
IN_MEMORY = 2**26
"""bytes of pixels up to which image files are decoded anew at each start, which takes seconds"""
AUTOMATIC = 2**32
"""bytes of pixels up to which a set is packed at its first use; for more, one has to ask"""
UNPACKED = ("digits", "mnist-5k")
"""sets that are not worth a packed file"""


def load(name: str, directory: Path | None = None, pixels: int | None = None) -> ImageSet:
    """The data set of a name: downloaded or packed, if it has to be, by the one of a job's workers that comes first.

    Args:
        name: one of `NAMES`; `npz:FILE` with the path of an npz file, `folder:PATH` with that of class folders.
        directory: of downloaded and packed sets; None: see `home`.
        pixels: size to which the largest centred square of each image is resized; None: images as they are.

    Returns:
        The images and labels.

    Raises:
        UnknownNameError: with the nearest names.
        ValueError: for a file that is no such set, or a set that is not here and cannot be downloaded.
    """
    directory = home(directory)
    name = full_name(name, pixels)
    path = packed.place(directory, name, pixels)
    wanted = path.exists()
    if wanted and not stale(path, name, pixels):
        return packed.read(path, name, pixels)
    dataset = opened(name, directory, pixels)
    if isinstance(dataset, ImageSet):
        return resized(dataset, pixels)
    length = dataset.bytes()
    if length <= IN_MEMORY and not wanted:
        return dataset.in_memory()
    if length > AUTOMATIC and not wanted:
        command = f"noiseless data pack {name}{f' --pixels {pixels}' if pixels else ''}"
        raise ValueError(f"{name} is not packed yet: {command} decodes its images once, into {size(length)} at {path}")
    pack(name, directory, pixels)
    return packed.read(path, name, pixels)


def pack(name: str, directory: Path | None = None, pixels: int | None = None) -> Path:
    """Decodes a set once, into one file from which `load` takes it from then on.

    Args:
        name: see `load`.
        directory: see `load`.
        pixels: see `load`.

    Returns:
        The file; one that is there already, and whose source has not changed, is left as it is.

    Raises:
        ValueError: for a set that is not worth it, or cannot be read.
    """
    directory = home(directory)
    name = full_name(name, pixels)
    if name in UNPACKED or name.startswith("npz:"):
        raise ValueError(f"{name} is taken into memory as it is: there is nothing to pack")
    path = packed.place(directory, name, pixels)
    with held(path):
        if path.exists() and not stale(path, name, pixels):
            packed.read(path, name, pixels)
            return path
        dataset = opened(name, directory, pixels)
        contents = _contents(resized(dataset, pixels) if isinstance(dataset, ImageSet) else dataset, pixels)
        count = len(contents.y_train) + len(contents.y_test)
        tell(f"packing {count:,} images of {name} into {path} ({size(contents.bytes())}), once")
        with bar("packing", count, "images") as advance:
            packed.write(path, contents, advance)
    return path


def opened(name: str, directory: Path, pixels: int | None) -> ImageSet | Pictures:
    """A set from where it was published, not from its packed file.

    Args:
        name: as `full_name` gives it.
        directory: of data sets.
        pixels: of image files; images that are arrays already have their own size.

    Returns:
        Arrays, or image files that are not decoded yet. Where there are fewer or more of them than were published, that
        is told.
    """
    kind, _, path = name.partition(":")
    if kind == "npz":
        return npz(Path(path))
    if kind == "folder":
        return class_folders(name, Path(path), pixels)
    entry = ENTRIES[name]
    dataset = entry.open(directory, pixels)
    parts = (dataset.train, dataset.test) if isinstance(dataset, Pictures) else (dataset.x_train, dataset.x_test)
    there, published = (f"{train:,} + {test:,}" for train, test in (map(len, parts), (entry.train, entry.test)))
    if there != published:
        place = entry.here(directory)
        tell(f"note: {place} holds {there} images, not the published {published}: was it unpacked in part?")
    return dataset


def full_name(name: str, pixels: int | None = None) -> str:
    """A set's name as it goes into a run's record: paths are absolute.

    Args:
        name: as a user gives it.
        pixels: as a user gives it.

    Returns:
        The name.

    Raises:
        UnknownNameError: with the nearest names.
        ValueError: if `pixels` is no size.
    """
    if pixels is not None and pixels < 1:
        raise ValueError(f"--pixels must be at least 1, not {pixels}")
    kind, colon, path = name.partition(":")
    if colon and kind in ("npz", "folder"):
        if not path:
            raise ValueError(f"{name} lacks a path: {kind}:PATH")
        return f"{kind}:{Path(path).expanduser().resolve()}"
    if name not in ENTRIES:
        raise UnknownNameError("data set", name, NAMES)
    return name


def stale(path: Path, name: str, pixels: int | None) -> bool:
    """Whether a folder has changed since it was packed; one that is gone has not.

    Args:
        path: of the packed file.
        name: as `full_name` gives it.
        pixels: see `load`.

    Returns:
        Whether the packed file is of another time; that is told.
    """
    kind, _, folder = name.partition(":")
    if kind != "folder" or not Path(folder).is_dir():
        return False
    packed.read(path, name, pixels)  # a damaged file is told, not written over
    if class_folders(name, Path(folder), pixels).source == packed.source(path):
        return False
    tell(f"{folder} has changed since it was packed")
    return True


def _contents(dataset: ImageSet | Pictures, pixels: int | None) -> packed.Contents:
    """What is to be packed of a set."""
    if isinstance(dataset, Pictures):
        return packed.Contents(
            dataset.name, pixels, dataset.shape(), dataset.train.labels, dataset.test.labels,
            dataset.decoded(dataset.train), dataset.decoded(dataset.test), dataset.source,
        )  # fmt: skip
    return packed.Contents(
        dataset.name, pixels, tuple(dataset.x_train.shape[1:]), dataset.y_train.numpy(), dataset.y_test.numpy(),
        _pieces(dataset.x_train), _pieces(dataset.x_test),
    )  # fmt: skip


def _pieces(images: Tensor) -> Iterator[np.ndarray]:
    return (piece.numpy() for piece in images.split(4096))
