"""Pixel statistics from exact integer sums over chunks of images, so that a set need not fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

CHUNK = 1024
"""number of images that are counted at once"""


def histogram(images: np.ndarray) -> np.ndarray:
    """The counts of the levels 0 ... 255 in each channel: uint8 `[n, C, H, W]` -> int64 `[C, 256]`."""
    channels = np.swapaxes(images, 0, 1).reshape(images.shape[1], -1)
    return np.stack([np.bincount(channel, minlength=256) for channel in channels]).astype(np.int64)


def moments(histograms: Iterable[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel's pixels, in units of 255.

    Args:
        histograms: of the parts of a set, each int64 `[C, 256]`.

    Returns:
        `mean(x) / 255` and `sqrt(mean(x^2) - mean(x)^2) / 255` for each channel. The sums are integers, so the
        deviation of equal pixels is exactly 0.
    """
    means, stds = [], []
    level = np.arange(256, dtype=np.int64)
    for counts in np.sum(list(histograms), 0):
        n, total, squares = int(counts.sum()), int((counts * level).sum()), int((counts * level**2).sum())
        means.append(total / n / 255)
        stds.append(math.sqrt(n * squares - total**2) / n / 255)
    return means, stds
