"""The size of a data set, known without its images: a run can be planned before anything is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noiseless.data import packed
from noiseless.data.catalogue import ENTRIES, full_name
from noiseless.data.datasets import load
from noiseless.data.folder import class_folders
from noiseless.data.home import home
from noiseless.data.packed import RESIDENT


@dataclass(frozen=True)
class Extent:
    """The numbers of a set that decide the cost of training on it."""

    train: int
    """number of training images"""
    test: int
    """number of test images"""
    shape: tuple[int, int, int]
    """of an image, `(C, H, W)`"""
    classes: int

    @property
    def bytes(self) -> int:
        """Bytes of pixels (uint8) and labels (int64) in memory."""
        channels, height, width = self.shape
        return (self.train + self.test) * (channels * height * width + 8)

    @property
    def resident(self) -> bool:
        """Whether the set is small enough to be moved to the device."""
        return self.bytes <= RESIDENT


def extent(name: str, directory: Path | None = None, pixels: int | None = None) -> Extent:
    """The extent of a set. Nothing is downloaded or packed: for the sets of the catalogue it is the published one.

    Args:
        name: see `load`.
        directory: of data sets; None: see `home`.
        pixels: size to which images are resized; None: images keep their size.

    Returns:
        The numbers.

    Raises:
        ValueError: for an unknown set, a file that is no valid set, or images of several sizes without `pixels`.
    """
    name = full_name(name, pixels)
    kind, _, path = name.partition(":")
    if kind != "folder" and name not in ENTRIES:
        dataset = load(name, directory, pixels)
        channels, height, width = dataset.x_train.shape[1:]
        return Extent(len(dataset.x_train), len(dataset.x_test), (channels, height, width), dataset.classes)
    if kind == "folder":
        pictures = class_folders(name, Path(path), pixels)
        classes = int(pictures.train.labels.max()) + 1
        return Extent(len(pictures.train), len(pictures.test), pictures.shape(), classes)
    entry = ENTRIES[name]
    channels_text, *sides = entry.shape.split("x")
    if pixels is None and "N" in sides:
        raise ValueError(f"the images of {name} differ in size: give --pixels N (224 is usual)")
    height, width = (pixels or int(side) for side in sides)
    return Extent(entry.train, entry.test, (int(channels_text), height, width), entry.classes)


def is_local(name: str, directory: Path | None = None, pixels: int | None = None) -> bool:
    """Whether a set is on this machine, packed or as it was published.

    Args:
        name: see `load`.
        directory: of data sets; None: see `home`.
        pixels: see `load`.

    Returns:
        Whether `load` needs no download.
    """
    directory, name = home(directory), full_name(name, pixels)
    if name not in ENTRIES:
        return True
    return ENTRIES[name].here(directory) is not None or packed.place(directory, name, pixels).exists()
