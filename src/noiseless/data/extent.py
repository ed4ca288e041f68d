"""How large a set is, without its images: for what is planned before anything is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noiseless.data import packed
from noiseless.data.catalogue import ENTRIES
from noiseless.data.datasets import full_name, load
from noiseless.data.folder import class_folders
from noiseless.data.home import home
from noiseless.data.packed import RESIDENT


@dataclass(frozen=True)
class Extent:
    """What of a set decides the cost of training on it."""

    train: int
    """training images"""
    test: int
    shape: tuple[int, int, int]
    """of an image, `(C, H, W)`"""
    classes: int

    @property
    def bytes(self) -> int:
        """Of pixels and labels, as they are kept."""
        channels, height, width = self.shape
        return (self.train + self.test) * (channels * height * width + 8)

    @property
    def resident(self) -> bool:
        """Whether it is small enough to live on the device."""
        return self.bytes <= RESIDENT


def extent(name: str, directory: Path | None = None, pixels: int | None = None) -> Extent:
    """The extent of a set: as it was published, where it has a name of its own; nothing is downloaded or packed.

    Args:
        name: as `load` takes it.
        directory: of data sets; None: see `home`.
        pixels: size to which images are resized; None: images as they are.

    Returns:
        The numbers.

    Raises:
        ValueError: for an unknown set or a file that is none, or if images of several sizes are not resized.
    """
    name = full_name(name, pixels)
    kind, _, path = name.partition(":")
    if kind == "npz":
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


def at_hand(name: str, directory: Path | None = None, pixels: int | None = None) -> bool:
    """Whether `load` would find a set on this machine, packed or as it was published.

    Args:
        name: as `load` takes it.
        directory: of data sets; None: see `home`.
        pixels: see `load`.

    Returns:
        Whether nothing has to be fetched.
    """
    directory, name = home(directory), full_name(name, pixels)
    if name not in ENTRIES:
        return True
    return ENTRIES[name].here(directory) is not None or packed.place(directory, name, pixels).exists()
