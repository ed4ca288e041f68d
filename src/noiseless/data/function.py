"""A data set from a function of the user's own: `package.module:function`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from noiseless import own
from noiseless.data.arrays import CHANNELS, KEYS, image_set
from noiseless.data.images import ImageSet

OWN = own.Kind("data set", "a function that returns training and test images", ("npz:FILE", "folder:PATH"))


def from_function(name: str) -> ImageSet:
    """Reads a set that a function of the user's own returns. It is called without arguments, in each process.

    The function returns `(train, test)`. Each is `(images, labels)` or a data set of `(image, label)`, such as those of
    torchvision without transform. Images are uint8: arrays `[N, H, W]` or `[N, H, W, C]`, tensors `[N, H, W]` or
    `[N, C, H, W]`, or one by one without the N, or Pillow's. Or it returns a dict of four arrays or tensors, as in an
    npz file.

    Args:
        name: `package.module:function`.

    Returns:
        The image set.

    Raises:
        ValueError: if the function cannot be called, or returns something else.
    """
    function = own.imported(OWN, name)
    returned = own.called(name, function)
    if isinstance(returned, Mapping) and all(key in returned for key in KEYS):
        parts = [(returned["x_train"], returned["y_train"]), (returned["x_test"], returned["y_test"])]
    elif isinstance(returned, (tuple, list)) and len(returned) == 2:
        parts = list(returned)
    else:
        raise ValueError(
            f"{name} returned a value of type {type(returned).__name__}; it must return (train, test), each of which is"
            f" (images, labels) or a data set of (image, label), or a dict with {', '.join(KEYS)}"
        )
    arrays: dict[str, np.ndarray] = {}
    for part, contents in zip(("train", "test"), parts, strict=True):
        place = f"{name}: x_{part}"
        images, labels = contents if _is_pair(contents) else _collected(place, contents)
        arrays[f"x_{part}"], arrays[f"y_{part}"] = _channels_last(place, images), np.asarray(labels)
    return image_set(name, name, arrays)


def _is_pair(contents: Any) -> bool:
    """Whether a part is (images, labels), not a data set of two items."""
    pair = isinstance(contents, (tuple, list)) and len(contents) == 2
    return pair and isinstance(contents[0], (Tensor, np.ndarray))


def _collected(place: str, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a data set of (image, label)."""
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ValueError(
            f"{place} is of type {type(dataset).__name__}; it must be (images, labels), or a data set with __len__ and"
            " __getitem__"
        )
    images, labels = [], []
    for number in range(len(dataset)):
        item = dataset[number]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ValueError(f"{place}: item {number} is of type {type(item).__name__}; it must be (image, label)")
        image = item[0]
        if isinstance(image, Image.Image) and image.mode not in ("L", "RGB"):
            image = image.convert("RGB")
        images.append(_channels_last(place, image[None]) if isinstance(image, Tensor) else np.asarray(image)[None])
        labels.append(np.asarray(item[1]))
        if images[-1].shape != images[0].shape:
            shapes = [list(images[k].shape[1:]) for k in (-1, 0)]
            raise ValueError(
                f"{place}: the image of item {number} has shape {shapes[0]}, but that of item 0 {shapes[1]}; resize"
                " them in the function"
            )
    return (np.concatenate(images), np.stack(labels)) if images else (np.zeros((0, 0, 0), np.uint8), np.zeros(0, int))


def _channels_last(place: str, images: Any) -> np.ndarray:
    """Images as an array whose channels are last; those of a tensor come first."""
    if not isinstance(images, Tensor) or images.ndim != 4:
        return np.asarray(images)
    if images.shape[1] not in CHANNELS and images.shape[3] in CHANNELS:
        raise ValueError(
            f"{place} is a tensor of shape {list(images.shape)}, which looks like [N, H, W, C]; a tensor's channels"
            " must come first: permute(0, 3, 1, 2)"
        )
    return images.permute(0, 2, 3, 1).cpu().contiguous().numpy()
