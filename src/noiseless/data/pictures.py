"""Sets of image files, and their decoding into arrays uint8 `[3, H, W]`.

Pillow decodes and resizes. Its resizing is integer arithmetic, so the pixels are the same on any machine.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from noiseless.data.images import ImageSet
from noiseless.data.memory import refuse_beyond_memory
from noiseless.system import cores

KINDS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"), **dict.fromkeys((".png", ".apng"), "PNG"),
    ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP", **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
}  # fmt: skip
"""ending of an image file, in lower case -> Pillow's name of its format. Pillow knows more, some of which start other
programs, so a file is read in the format of its name only"""
_FORMATS = tuple(dict.fromkeys(KINDS.values()))
BATCH = 2**26
"""bytes of pixels that are decoded at once, by all threads together"""


@dataclass(frozen=True)
class Part:
    """The image files of one part of a set, training or test."""

    names: Sequence[str]
    """of the files, for error messages"""
    labels: np.ndarray
    """int64 `[N]`"""
    read: Callable[[int], bytes]
    """number of a file -> its content"""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class ImageFiles:
    """A labelled set of image files."""

    name: str
    train: Part
    test: Part
    pixels: int | None
    """size to which the largest centred square of an image is resized; None: images keep their size"""
    source: str = ""
    """digest that changes if the files change; empty: they are assumed not to change"""
    upright: bool = False
    """whether images are turned as their EXIF orientation says"""
    left_out: str = ""
    """message about files that are no images; empty: there are none"""
    kinds: Sequence[str] = ()
    """formats of the files; empty: that of each file's ending, see `KINDS`"""

    def shape(self) -> tuple[int, int, int]:
        """The shape `(3, H, W)` of each image: from `pixels`, or that of the first image, which others must match."""
        if self.pixels is not None:
            return 3, self.pixels, self.pixels
        first = decode(self.train.read(0), self.train.names[0], upright=self.upright, kinds=self.kinds)
        return first.shape[0], first.shape[1], first.shape[2]

    def bytes(self) -> int:
        """Bytes of all pixels."""
        return (len(self.train) + len(self.test)) * int(np.prod(self.shape()))

    def decoded(self, part: Part) -> Iterator[np.ndarray]:
        """Decodes the images of a part, in their order, on all cores.

        Args:
            part: training or test.

        Yields:
            uint8 `[n, 3, H, W]`, at most `BATCH` bytes at a time.

        Raises:
            ValueError: with the name of a file that cannot be read, or whose size differs.
        """
        shape = self.shape()
        first = self.train.names[0]

        def decode_one(number: int) -> np.ndarray:
            image = decode(part.read(number), part.names[number], self.pixels, self.upright, self.kinds)
            if image.shape != shape:
                sizes = [f"{size[2]}x{size[1]}" for size in (shape, image.shape)]
                raise ValueError(
                    f"{part.names[number]} is {sizes[1]}, but {first} is {sizes[0]}; --pixels N crops and resizes all"
                )
            return image

        batch = max(1, BATCH // int(np.prod(shape)))
        with ThreadPoolExecutor(cores()) as pool:  # Pillow releases the GIL while it decodes
            for start in range(0, len(part), batch):
                yield np.stack(list(pool.map(decode_one, range(start, min(start + batch, len(part))))))

    def in_memory(self) -> ImageSet:
        """Decodes all images into memory."""
        x_train, x_test = (torch.from_numpy(np.concatenate(list(self.decoded(p)))) for p in (self.train, self.test))
        y_train, y_test = (torch.from_numpy(part.labels) for part in (self.train, self.test))
        return ImageSet(self.name, x_train, y_train, x_test, y_test)


def decode(
    content: bytes, place: str, pixels: int | None = None, upright: bool = False, kinds: Sequence[str] = ()
) -> np.ndarray:
    """Decodes an image file to red, green and blue. Grey, palette and CMYK images are converted, alpha is dropped.

    Args:
        content: of the file.
        place: name of the file.
        pixels: size, see `ImageFiles`.
        upright: whether the image is turned as its EXIF orientation says.
        kinds: formats in which it is read; empty: that of its name's ending, or any of `KINDS` for another ending.

    Returns:
        uint8 `[3, H, W]`.

    Raises:
        ValueError: if the file is empty, damaged, no image of its kind, or has more than 8 bits a channel.
    """
    if not content:
        raise ValueError(f"{place} is empty")
    named = KINDS.get(os.path.splitext(place)[1].lower())  # noqa: PTH122  # a Path for each image would be slow
    chosen = tuple(kinds) or ((named,) if named else _FORMATS)
    try:
        with Image.open(io.BytesIO(content), formats=chosen) as image:
            if _deep(image):
                raise ValueError("it has more than 8 bits a channel; convert it")
            if upright:
                _turn_upright(image)
            # a transparent colour in a palette is converted correctly to RGBA only
            colours = (image.convert("RGBA") if image.mode in ("P", "PA") else image).convert("RGB")
            return np.ascontiguousarray(np.asarray(_square(colours, pixels)).transpose(2, 0, 1))
    except UnidentifiedImageError:
        other = _format(content)
        problem = f"{other}, not {' or '.join(chosen)}: rename it" if other else "of no known format"
        raise ValueError(f"{place} cannot be read as an image: its content is {problem}") from None
    except Exception as error:  # damaged files may raise anything
        raise ValueError(f"{place} cannot be read as an image: {str(error) or type(error).__name__}") from None


def _format(content: bytes) -> str | None:
    """The format of an image file among `KINDS`; None for any other content."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return image.format
    except Exception:  # damaged files may raise anything
        return None


def _turn_upright(image: Image.Image) -> None:
    """Turns or mirrors an image, in place, as its EXIF orientation says."""
    image.load()  # raises if the pixels are damaged
    with suppress(Exception):  # damaged metadata may raise anything, and say nothing about the pixels
        ImageOps.exif_transpose(image, in_place=True)


def _deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits a channel, which Pillow reduces to 8 without a warning."""
    if image.mode[0] in "IF":
        return True
    for tile in getattr(image, "tile", ()):  # layout of the bytes: "RGB;16B", or for PPM ("RGB", largest value)
        layout = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if re.search(r";(16|32)[BLN]", str(layout[0])) or (tile.codec_name.startswith("ppm") and layout[1] > 255):
            return True
    return False


def resized(dataset: ImageSet, pixels: int | None) -> ImageSet:
    """Resizes the images of a set in memory to `pixels` x `pixels`; None: returns the set unchanged.

    Returns:
        The resized set.

    Raises:
        ValueError: if it would not fit into memory.
    """
    if pixels is None or dataset.x_train.shape[2:] == (pixels, pixels):
        return dataset
    images, channels = len(dataset.x_train) + len(dataset.x_test), dataset.x_train.shape[1]
    refuse_beyond_memory(
        f"{images:,} images of --pixels {pixels:,}", images * channels * pixels**2, "give fewer pixels"
    )
    x_train, x_test = (_resized(x, pixels) for x in (dataset.x_train, dataset.x_test))
    return ImageSet(dataset.name, x_train, dataset.y_train, x_test, dataset.y_test)


def _resized(images: Tensor, pixels: int) -> Tensor:
    """`[N, C, H, W]` -> `[N, C, pixels, pixels]`; each channel is resized as a grey image."""
    resized = np.empty((*images.shape[:2], pixels, pixels), np.uint8)
    for image, into in zip(images.numpy(), resized, strict=True):
        for c, channel in enumerate(image):
            into[c] = np.asarray(_square(Image.fromarray(channel), pixels))
    return torch.from_numpy(resized)


def _square(image: Image.Image, pixels: int | None) -> Image.Image:
    """Crops an image to its largest centred square, and resizes that with Pillow's bilinear filter."""
    width, height = image.size
    if pixels is None or (width, height) == (pixels, pixels):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((pixels, pixels), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
