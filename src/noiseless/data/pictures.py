"""Image files before they are arrays: what a set of them holds, and how one becomes bytes `[3, H, W]`.

Decoding is Pillow's, whose resizing is whole-number arithmetic: the same pixels on any machine.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from noiseless.data.images import ImageSet

BATCH = 2**26
"""bytes of pixels that are decoded at once, by all threads together"""


@dataclass(frozen=True)
class Part:
    """The image files of one part of a set."""

    places: Sequence[str]
    """as errors name them"""
    labels: np.ndarray
    """int64 `[N]`"""
    read: Callable[[int], bytes]
    """(number) -> content of the file"""

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class Pictures:
    """A labelled set of image files."""

    name: str
    train: Part
    test: Part
    pixels: int | None
    """size to which the largest centred square of an image is resized; None: images are taken as they are"""
    source: str = ""
    """tells whether the files have changed since; empty: they do not change"""

    def shape(self) -> tuple[int, int, int]:
        """`[3, H, W]` of each image: of the first one, which all have to share, or `pixels`."""
        if self.pixels is not None:
            return 3, self.pixels, self.pixels
        first = decode(self.train.read(0), self.train.places[0])
        return first.shape[0], first.shape[1], first.shape[2]

    def bytes(self) -> int:
        """Bytes of all pixels."""
        return (len(self.train) + len(self.test)) * int(np.prod(self.shape()))

    def decoded(self, part: Part) -> Iterator[np.ndarray]:
        """A part's images, in their order, decoded on all cores.

        Args:
            part: training or test.

        Yields:
            uint8 `[n, 3, H, W]`, a few MB at a time.

        Raises:
            ValueError: naming the file that cannot be read, or whose size differs.
        """
        shape = self.shape()
        first = self.train.places[0]

        def one(number: int) -> np.ndarray:
            image = decode(part.read(number), part.places[number], self.pixels)
            if image.shape != shape:
                sizes = [f"{size[2]}x{size[1]}" for size in (shape, image.shape)]
                raise ValueError(
                    f"{part.places[number]} is {sizes[1]}, but {first} is {sizes[0]}; --pixels N crops and resizes all"
                )
            return image

        batch = max(1, BATCH // int(np.prod(shape)))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # Pillow decodes outside of Python's lock
            for start in range(0, len(part), batch):
                yield np.stack(list(pool.map(one, range(start, min(start + batch, len(part))))))

    def in_memory(self) -> ImageSet:
        """All of it as arrays."""
        x_train, x_test = (torch.from_numpy(np.concatenate(list(self.decoded(p)))) for p in (self.train, self.test))
        y_train, y_test = (torch.from_numpy(part.labels) for part in (self.train, self.test))
        return ImageSet(self.name, x_train, y_train, x_test, y_test)


def decode(content: bytes, place: str, pixels: int | None = None) -> np.ndarray:
    """An image file as bytes in red, green and blue; grey, palette and CMYK images are converted, alpha is dropped.

    Args:
        content: of the file, in any format that Pillow reads.
        place: names it in errors.
        pixels: size, see `Pictures`.

    Returns:
        uint8 `[3, H, W]`.

    Raises:
        ValueError: if it is empty, damaged, no image, or has more than 8 bits a channel.
    """
    if not content:
        raise ValueError(f"{place} is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            if _deep(image):
                raise ValueError("it has more than 8 bits a channel; convert it")
            # a palette's transparent colour is known to RGBA alone
            colours = (image.convert("RGBA") if image.mode in ("P", "PA") else image).convert("RGB")
            return np.ascontiguousarray(np.asarray(_square(colours, pixels)).transpose(2, 0, 1))
    except UnidentifiedImageError:
        raise ValueError(f"{place} cannot be read as an image: its content is of no known format") from None
    except Exception as error:  # damaged files raise whatever the damaged field comes to
        raise ValueError(f"{place} cannot be read as an image: {str(error) or type(error).__name__}") from None


def _deep(image: Image.Image) -> bool:
    """Whether an opened image has more than 8 bits a channel; Pillow cuts colours of 16 bits down without a word."""
    if image.mode[0] in "IF":
        return True
    for tile in getattr(image, "tile", ()):  # how the file's bytes lie: RGB;16B, or for PPM (RGB, largest value)
        layout = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if re.search(r";(16|32)[BLN]", str(layout[0])) or (tile.codec_name.startswith("ppm") and layout[1] > 255):
            return True
    return False


def resized(dataset: ImageSet, pixels: int | None) -> ImageSet:
    """A set in memory with its images at another size; None: as it is."""
    if pixels is None or dataset.x_train.shape[2:] == (pixels, pixels):
        return dataset
    x_train, x_test = (_resized(x, pixels) for x in (dataset.x_train, dataset.x_test))
    return ImageSet(dataset.name, x_train, dataset.y_train, x_test, dataset.y_test)


def _resized(images: Tensor, pixels: int) -> Tensor:
    """`[N, C, H, W]` -> `[N, C, pixels, pixels]`, each channel as a grey image."""
    resized = np.empty((*images.shape[:2], pixels, pixels), np.uint8)
    for image, into in zip(images.numpy(), resized, strict=True):
        for c, channel in enumerate(image):
            into[c] = np.asarray(_square(Image.fromarray(channel), pixels))
    return torch.from_numpy(resized)


def _square(image: Image.Image, pixels: int | None) -> Image.Image:
    """The largest centred square of an image, resized: the shorter side fits, and the longer is cropped."""
    width, height = image.size
    if pixels is None or (width, height) == (pixels, pixels):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((pixels, pixels), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
