"""Sets of image files in class folders: `folder:PATH`, and ImageNet, which is one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from noiseless.data.pictures import Part, Pictures

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
"""of image files, in small letters; other files in class folders are left out"""


def class_folders(name: str, path: Path, pixels: int | None, watched: bool = True) -> Pictures:
    """The set of a folder with `train/CLASS/...` and `test/CLASS/...` (or `val/CLASS/...`).

    Args:
        name: of the set.
        path: of the folder.
        pixels: see `Pictures`.
        watched: whether names, sizes and times of the files are noted, to tell when they change.

    Returns:
        Its images: classes, and files within a class, by the order of their names.

    Raises:
        ValueError: if folders are missing, differ between the two parts, or hold no images.
    """
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    train = path / "train"
    test = next((path / split for split in ("test", "val") if (path / split).is_dir()), path / "test")
    if not train.is_dir() or not test.is_dir():
        raise ValueError(f"{path} must hold train/CLASS/IMAGE and test/CLASS/IMAGE (or val); it holds {_names(path)}")
    classes = [_classes(split) for split in (train, test)]
    if classes[0] != classes[1]:
        differing = sorted(set(classes[0]) ^ set(classes[1]))
        listed = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        raise ValueError(
            f"the class folders of {train} and {test} differ: {listed} in one of them alone. Both need the same"
            " folders, with an image or more in each"
        )
    if not classes[0]:
        raise ValueError(f"{train} holds no class folders; it holds {_names(train)}")
    noted = hashlib.sha256()
    first, second = (_part(split, classes[0], noted if watched else None) for split in (train, test))
    return Pictures(name, first, second, pixels, noted.hexdigest() if watched else "")


def _classes(path: Path) -> list[str]:
    return sorted(folder.name for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _names(path: Path) -> str:
    names = sorted(each.name for each in path.iterdir())
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "nothing"


def _part(path: Path, classes: list[str], noted: hashlib._Hash | None) -> Part:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(_images(path / name))
        if not images:
            raise ValueError(
                f"{path / name} holds no images ({', '.join(sorted(SUFFIXES))}); it holds {_names(path / name)}"
            )
        files += images
        labels += [label] * len(images)
    if noted is not None:
        for file in files:
            state = os.stat(file)  # noqa: PTH116  # a Path for each of a million files would take twice as long
            noted.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape"))

    def read(number: int) -> bytes:
        return Path(files[number]).read_bytes()

    return Part(files, np.array(labels, np.int64), read)


def _images(path: Path) -> list[str]:
    """Image files below a class folder, at any depth; what is hidden is left out."""
    images: list[str] = []
    seen = set()
    for place, folders, files in os.walk(path, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            raise ValueError(f"{place} is a link to a folder of the same class: its images would count twice")
        seen.add(real)
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        images += [
            f"{place}/{file}"
            for file in files
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES  # noqa: PTH122
        ]
    return images
