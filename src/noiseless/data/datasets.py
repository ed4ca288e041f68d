"""Data sets by name: small ones in memory, large ones memory-mapped from their packed file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from noiseless.data import packed, packedheader
from noiseless.data.arrays import npz
from noiseless.data.catalogue import ENTRIES, full_name
from noiseless.data.folder import class_folders
from noiseless.data.function import from_function
from noiseless.data.home import home
from noiseless.data.images import ImageSet
from noiseless.data.lock import file_lock
from noiseless.data.pictures import ImageFiles, resized
from noiseless.data.progress import progress_bar, size
from noiseless.screen import print_line, print_note
from noiseless.trust import trusting

IN_MEMORY = 2**26
"""bytes of pixels up to which image files are decoded at each start, which takes seconds, instead of packed"""
AUTOMATIC = 2**32
"""bytes of pixels up to which a set is packed at its first use; a larger one is packed by `noiseless data pack` only"""
NEVER_PACKED = ("digits", "mnist-5k")
"""small sets that are always loaded into memory"""


def load(
    name: str,
    directory: Path | None = None,
    pixels: int | None = None,
    trust: str | Iterable[str] | None = None,
    read_only: bool = False,
) -> ImageSet:
    """Loads a data set. If necessary, it is downloaded and packed, by the first worker of a job that needs it.

    Args:
        name: a set of the catalogue, `npz:FILE` for an npz file, `folder:PATH` for class folders, or
            `package.module:function` for a function of your own, see `from_function`.
        directory: of downloaded and packed sets; None: see `home`.
        pixels: size to which the largest centred square of each image is resized; None: images keep their size.
        trust: your own functions that may be used, `package.module:function` or `package.module`; None: those of the
            command's flags and of your settings, see `noiseless trust`.
        read_only: whether nothing is downloaded or packed, because a file, not the user, names the set.

    Returns:
        The images and labels.

    Raises:
        UnknownNameError: for an unknown name, with the nearest known ones.
        ValueError: for a file that is no valid set, a set that is missing and cannot be downloaded, or a function that
            is not trusted.
    """
    with trusting(trust):
        return _load(name, home(directory), pixels, read_only)


def _load(name: str, directory: Path, pixels: int | None, read_only: bool) -> ImageSet:
    name = full_name(name, pixels)
    path = packed.place(directory, name, pixels)
    is_packed = Path(path).exists()  # False, not an error, in another user's directory
    if is_packed and not stale(path, name, pixels):
        return packed.read(path, name, pixels)
    if read_only and name in ENTRIES and ENTRIES[name].here(directory) is None:
        raise ValueError(
            f"the data set {name} is not in {directory}, and a run that is read starts no download: get it with"
            f" noiseless data fetch {name}"
        )
    dataset = opened(name, directory, pixels)
    if isinstance(dataset, ImageSet):
        return resized(dataset, pixels)
    length = dataset.bytes()
    if length <= IN_MEMORY and not is_packed:
        return dataset.in_memory()
    if read_only or (length > AUTOMATIC and not is_packed):
        command = f"noiseless data pack {name}{f' --pixels {pixels}' if pixels else ''}"
        state = "has changed since it was packed" if is_packed else "is not packed yet"
        raise ValueError(f"{name} {state}: {command} decodes its images once, into {size(length)} at {path}")
    pack(name, directory, pixels)
    return packed.read(path, name, pixels)


def pack(name: str, directory: Path | None = None, pixels: int | None = None) -> Path:
    """Decodes a set into a packed file, from which `load` reads it from then on.

    Args:
        name: see `load`.
        directory: see `load`.
        pixels: see `load`.

    Returns:
        The path of the file. A file that exists, and whose source has not changed, is not written again.

    Raises:
        ValueError: for a set that is never packed, or cannot be read.
    """
    directory = home(directory)
    name = full_name(name, pixels)
    kind, colon, _ = name.partition(":")
    if name in NEVER_PACKED or (colon and kind != "folder"):
        raise ValueError(f"{name} is loaded into memory as it is: there is nothing to pack")
    path = packed.place(directory, name, pixels)
    with file_lock(path):
        if path.exists() and not stale(path, name, pixels):
            packed.read(path, name, pixels)
            return path
        dataset = opened(name, directory, pixels)
        contents = _contents(resized(dataset, pixels) if isinstance(dataset, ImageSet) else dataset, pixels)
        count = len(contents.y_train) + len(contents.y_test)
        print_line(f"packing {count:,} images of {name} into {path} ({size(contents.bytes())}), once")
        with progress_bar("packing", count, "images") as advance:
            packed.write(path, contents, advance)
    return path


def opened(name: str, directory: Path, pixels: int | None) -> ImageSet | ImageFiles:
    """Opens a set from its published files (or your own), not from its packed file.

    A note is printed if the number of images is not the published one, and about files that are left out of a folder.

    Args:
        name: as `full_name` returns it.
        directory: of data sets.
        pixels: size of images that are decoded from files; images in arrays keep their size.

    Returns:
        Arrays, or image files that are not decoded yet.
    """
    kind, _, path = name.partition(":")
    if kind == "npz":
        return npz(Path(path))
    if kind == "folder":
        files = class_folders(name, Path(path), pixels)
        if files.left_out:
            print_note(f"{path}: {files.left_out}")
        return files
    if name not in ENTRIES:
        return from_function(name)
    entry = ENTRIES[name]
    dataset = entry.open(directory, pixels)
    parts = (dataset.train, dataset.test) if isinstance(dataset, ImageFiles) else (dataset.x_train, dataset.x_test)
    present, published = (f"{train:,} + {test:,}" for train, test in (map(len, parts), (entry.train, entry.test)))
    if present != published:
        place = entry.here(directory)
        print_note(f"{place} holds {present} images, not the published {published}: was it unpacked in part?")
    return dataset


def stale(path: Path, name: str, pixels: int | None) -> bool:
    """Whether a class folder has changed since it was packed. A folder that no longer exists has not changed.

    Args:
        path: of the packed file.
        name: as `full_name` returns it.
        pixels: see `load`.

    Returns:
        Whether the packed file is out of date; if so, a message is printed.
    """
    kind, _, folder = name.partition(":")
    if kind != "folder" or not Path(folder).is_dir():
        return False
    packed.read(path, name, pixels)  # raises if the file is damaged, so that it is not overwritten
    if class_folders(name, Path(folder), pixels).source == packedheader.source(path):
        return False
    print_line(f"{folder} has changed since it was packed")
    return True


def _contents(dataset: ImageSet | ImageFiles, pixels: int | None) -> packed.Contents:
    """The contents of a set's packed file."""
    if isinstance(dataset, ImageFiles):
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
