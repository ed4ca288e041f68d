"""Your own arrays as a data set: `npz:FILE`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from noiseless.data.images import ImageSet
from noiseless.errors import reason
from noiseless.plain import open_file, real
from noiseless.screen import print_note

KEYS = ("x_train", "y_train", "x_test", "y_test")
CHANNELS = (1, 2, 3, 4)
"""numbers of channels by which the order of an array's axes is recognised"""


def npz(path: Path) -> ImageSet:
    """Reads a set from the arrays `x_train`, `y_train`, `x_test`, `y_test` of an npz file (`numpy.savez`).

    Args:
        path: the file. Images are uint8 `[N, H, W]` or `[N, H, W, C]`, labels whole numbers 0 ... classes - 1.

    Returns:
        The image set, see `image_set`.

    Raises:
        ValueError: if the file cannot be read, lacks an array, or an array has a wrong dtype, shape or label.
    """
    arrays: dict[str, np.ndarray] = {}
    reading = ""
    try:
        with open_file(path) as stream, np.load(stream, allow_pickle=False) as file:
            names = list(file)
            for key in filter(names.__contains__, KEYS):
                reading = f" ({key})"
                arrays[key] = np.asarray(file[key])
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except Exception as error:  # numpy parses headers as Python, and zipfile raises many kinds of errors
        raise ValueError(f"{path} cannot be read as an npz file{reading}: {reason(error)}") from None
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}; it holds {', '.join(names) or 'nothing'}."
            " Make it with numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)"
        )
    return image_set(f"npz:{real(path)}", str(path), arrays)


def image_set(name: str, path: str, arrays: Mapping[str, np.ndarray]) -> ImageSet:
    """A set from arrays, after they are checked.

    Args:
        name: of the set.
        path: where the arrays come from, for messages.
        arrays: `x_train`, `y_train`, `x_test` and `y_test`, see `npz`.

    Returns:
        The image set. A note is printed if a class below the largest training label has no training image.

    Raises:
        ValueError: if an array has a wrong dtype, shape or label.
    """
    x_train, x_test = (_images(path, key, arrays[key]) for key in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        shapes = [list(arrays[key].shape[1:]) for key in ("x_train", "x_test")]
        raise ValueError(f"{path}: training and test images differ in shape, {shapes[0]} and {shapes[1]}")
    y_train = _labels(path, "y_train", arrays["y_train"], len(x_train), None)
    y_test = _labels(path, "y_test", arrays["y_test"], len(x_test), int(y_train.max()) + 1)
    return ImageSet(name, x_train, y_train, x_test, y_test)


def _images(path: str, key: str, array: np.ndarray) -> Tensor:
    if array.dtype != np.uint8:
        nans = int(np.isnan(array).sum()) if np.issubdtype(array.dtype, np.floating) else 0
        holds = f" and holds {nans} NaN" if nans else ""
        raise ValueError(f"{path}: {key} must be uint8 (0 ... 255), but is {array.dtype}{holds}; scale and convert it")
    if array.ndim not in (3, 4):
        raise ValueError(f"{path}: {key} must have shape [N, H, W] or [N, H, W, C], not {list(array.shape)}")
    if array.size == 0:
        raise ValueError(f"{path}: {key} is empty (shape {list(array.shape)})")
    if (
        array.ndim == 4
        and array.shape[3] not in CHANNELS
        and array.shape[1] in CHANNELS
        and array.shape[1] < array.shape[2]
    ):
        raise ValueError(
            f"{path}: {key} has shape {list(array.shape)}, which looks like [N, C, H, W]; channels must come last:"
            f" save {key}.transpose(0, 2, 3, 1)"
        )
    pixels = torch.from_numpy(array)
    return (pixels[:, None] if array.ndim == 3 else pixels.permute(0, 3, 1, 2)).contiguous()


def _labels(path: str, key: str, array: np.ndarray, images: int, classes: int | None) -> Tensor:
    if array.ndim != 1 or len(array) != images:
        raise ValueError(f"{path}: {key} must have one label per image, shape [{images}], not {list(array.shape)}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{path}: {key} must hold whole numbers, but is {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0:
        raise ValueError(f"{path}: {key} holds the label {low}; labels count from 0")
    if classes is None and high >= len(array):
        raise ValueError(
            f"{path}: {key} holds the label {high}, out of range for {len(array)} images; number classes from 0"
        )
    if classes is not None and high >= classes:
        raise ValueError(f"{path}: {key} holds the label {high}, but the largest training label is {classes - 1}")
    if classes is None and (absent := sorted(set(range(high)) - set(array.tolist()))):
        listed = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
        print_note(
            f"{path}: {key} holds no label {listed}, but labels up to {high}, so the model gets {high + 1} outputs;"
            " number the classes from 0 without gaps, unless this is intended"
        )
    return torch.from_numpy(array.astype(np.int64))
