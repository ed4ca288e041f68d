"""Augmentation: random crop and flip as a pure function of (seed, epoch, example number)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from noiseless import keyed


def crop_flip(images: Tensor, seed: int, epoch: int, index: Tensor, padding: int, flip: float) -> Tensor:
    """A random crop of the zero-padded image to its original size, then a random horizontal flip.

    The draws of an image depend on the seed, the epoch and the image's number only, not on the order or the batch of
    the images.

    Args:
        images: `[n, C, H, W]`, any dtype.
        seed: the run's seed.
        epoch: the step, epoch or copy number.
        index: the images' numbers in the data set, int64 `[n]`.
        padding: pixels of zeros on each side; the crop's corner is uniform on 0 ... 2 * padding in both directions.
        flip: probability of the flip.

    Returns:
        `[n, C, H, W]`.
    """
    words = keyed.words(seed, "augment", epoch, index)
    top, left = ((words[:, k] * (2 * padding + 1)) >> 32 for k in (0, 1))
    mirrored = words[:, 2] < round(flip * 2**32)
    height, width = images.shape[2:]
    rows = top[:, None] + torch.arange(height, device=index.device)
    columns = torch.arange(width, device=index.device).expand(len(images), -1)
    columns = left[:, None] + torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = F.pad(images, (padding,) * 4)
    example = torch.arange(len(images), device=index.device)[:, None, None]
    # advanced indices around a slice put the channel last: [n, H, W, C]
    return padded[example, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
