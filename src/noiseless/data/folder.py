"""Sets of image files in class folders: `folder:PATH`, and ImageNet."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np

from noiseless.data.pictures import KINDS, ImageFiles, Part
from noiseless.plain import read_file

PUBLISHED_KINDS = ("JPEG", "PNG")
"""formats of the files of ImageNet: one of them is PNG, although it is named JPEG"""


def class_folders(name: str, path: Path, pixels: int | None, published: bool = False) -> ImageFiles:
    """Opens the set in a folder with `train/CLASS/...` and `test/CLASS/...` (or `val/CLASS/...`).

    Args:
        name: of the set.
        path: of the folder.
        pixels: see `ImageFiles`.
        published: whether this is a published set, not the user's own: its files are assumed not to change, and images
            are not turned upright, as in other programs.

    Returns:
        The image files; the classes, and the files of a class, are in the order of their names.

    Raises:
        ValueError: if folders are missing, differ between the two parts, or hold no images.
    """
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    train = path / "train"
    test = next((path / split for split in ("test", "val") if (path / split).is_dir()), path / "test")
    if not train.is_dir() or not test.is_dir():
        raise ValueError(f"{path} must hold train/CLASS/IMAGE and test/CLASS/IMAGE (or val); it holds {_names(path)}")
    classes = [classes_in(split) for split in (train, test)]
    if classes[0] != classes[1]:
        differing = sorted(set(classes[0]) ^ set(classes[1]))
        listed = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        raise ValueError(
            f"the class folders of {train} and {test} differ: {listed} in one of them only. Both need the same"
            " folders, with at least one image in each"
        )
    if not classes[0]:
        raise ValueError(f"{train} holds no class folders; it holds {_names(train)}")
    digest = None if published else hashlib.sha256(b"upright\n")  # how the pixels depend on the files
    left_out: Counter[str] = Counter()
    train_part, test_part = (_part(split, classes[0], digest, left_out) for split in (train, test))
    kinds = PUBLISHED_KINDS if published else ()
    source = "" if digest is None else digest.hexdigest()
    return ImageFiles(name, train_part, test_part, pixels, source, not published, _left_out(left_out), kinds)


def classes_in(path: Path) -> list[str]:
    """The names of the class folders in the folder of one part, in their order."""
    return sorted(folder.name for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _names(path: Path) -> str:
    """The first names in a folder, for error messages."""
    names = sorted(entry.name for entry in path.iterdir())
    return (", ".join(names[:5]) + (", ..." if len(names) > 5 else "")) or "nothing"


def _left_out(endings: Counter[str]) -> str:
    """A message about files that are left out, from their number by ending."""
    counts = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in endings.most_common(5))
    more = ", ..." if len(endings) > 5 else ""
    total = endings.total()
    return f"{total} file{'s' * (total > 1)} left out, of other types than images: {counts}{more}" if total else ""


def _part(path: Path, classes: list[str], digest: hashlib._Hash | None, left_out: Counter[str]) -> Part:
    """The image files of one part; adds their names, sizes and times to the digest, and counts the other files."""
    left_out.update(_ending(file.name) for file in path.iterdir() if file.is_file() and file.name[0] != ".")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = sorted(_images(path / name, left_out))
        if not images:
            raise ValueError(
                f"{path / name} holds no images ({', '.join(sorted(KINDS))}); it holds {_names(path / name)}"
            )
        files += images
        labels += [label] * len(images)
    if digest is not None:
        for file in files:
            status = os.stat(file)  # noqa: PTH116  # a Path for each of a million files would take twice as long
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))

    def read(number: int) -> bytes:
        return read_file(files[number])

    return Part(files, np.array(labels, np.int64), read)


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # a Path for each of a million files would be slow


def _images(path: Path, left_out: Counter[str]) -> list[str]:
    """The image files below a class folder, at any depth; hidden files and folders are ignored, others counted."""
    images: list[str] = []
    seen = set()
    for place, folders, files in os.walk(path, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            raise ValueError(f"{place} is a link to a folder of the same class: its images would count twice")
        seen.add(real)
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for file in files:
            if file.startswith("."):
                continue
            if (ending := _ending(file)) in KINDS:  # other files are left out
                images.append(f"{place}/{file}")
            else:
                left_out[ending] += 1
    return images
