"""Images as examples: stored as bytes, augmented and normalised when they are taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from noiseless.data import statistics
from noiseless.data.augment import crop_flip
from noiseless.data.policies import Policy
from noiseless.errors import UnknownNameError


@dataclass(frozen=True)
class Facts:
    """Statistics and digest of a set's contents, recorded so that the contents need not be read again."""

    mean: list[float]
    """of each channel of the training images, in units of 255"""
    std: list[float]
    """of each channel of the training images, in units of 255"""
    sha256: str
    """see `ImageSet.sha256`"""


@dataclass(frozen=True)
class ImageSet:
    """Labelled training and test images."""

    name: str
    x_train: Tensor
    """uint8 `[N, C, H, W]`"""
    y_train: Tensor
    """int64 `[N]`, 0 ... classes - 1"""
    x_test: Tensor
    """uint8 `[M, C, H, W]`"""
    y_test: Tensor
    """int64 `[M]`"""
    resident: bool = True
    """whether the images are small enough to be moved to the device; if not, they stay memory-mapped"""
    facts: Facts | None = None
    """recorded facts of these tensors; None: they are computed when they are needed"""

    @property
    def classes(self) -> int:
        """Number of classes: the largest training label plus one."""
        return int(self.y_train.max()) + 1

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the training images' pixels for each channel, in units of 255.

        Returns:
            Both, from exact integer sums over the bytes, so that the deviation of equal pixels is exactly 0.
        """
        if self.facts is not None:
            return list(self.facts.mean), list(self.facts.std)
        return statistics.moments(statistics.histogram(x.numpy()) for x in self.x_train.split(statistics.CHUNK))

    def sha256(self) -> str:
        """SHA-256 over shapes and contents of the four tensors, in hexadecimal."""
        if self.facts is not None:
            return self.facts.sha256
        total = hashlib.sha256()
        for part in (self.x_train, self.y_train, self.x_test, self.y_test):
            total.update(str(list(part.shape)).encode())
            total.update(part.contiguous().numpy().data)
        return total.hexdigest()


@dataclass(frozen=True)
class Images:
    """One part of an image set as `Examples`: `take` returns normalised float images `[..., C, H, W]` and labels.

    The number of an example is `copy * N + image`. With `copies` above 1, each image is in the set that many times,
    each copy with its own augmentation; the copies are computed when they are taken, not stored. Policy, then crop and
    flip, are applied to the bytes; then the image is normalised.
    """

    images: Tensor
    """uint8 `[N, C, H, W]`"""
    labels: Tensor
    """int64 `[N]`"""
    mean: Sequence[float]
    """of each channel, in units of 255"""
    std: Sequence[float]
    """of each channel, in units of 255"""
    dtype: torch.dtype = torch.float32
    """of the images that `take` returns"""
    augment: Literal["none", "crop-flip"] = "none"
    padding: int = 4
    """pixels of zeros on each side, for the crop"""
    flip: float = 0.5
    """probability of a flip"""
    seed: int = 0
    """keys the draws of augmentation"""
    epoch: int = 0
    """keys the draws of the first copy; copy k has epoch + k"""
    copies: int = 1
    """number of copies of each image"""
    policy: Policy | None = None
    """augmentation policy; None: none"""
    first_clean: bool = False
    """whether the copy of epoch 0, the first of a fixed set, is not augmented"""
    chosen: Tensor | None = None
    """numbers of the images that are used, int64 `[n]` on the CPU; None: all. They key the images' draws"""

    def __post_init__(self) -> None:
        if self.augment not in ("none", "crop-flip"):
            raise UnknownNameError("augmentation", self.augment, ("none", "crop-flip"))

    def __len__(self) -> int:
        return self._count * self.copies

    @property
    def _count(self) -> int:
        return len(self.images if self.chosen is None else self.chosen)

    def only(self, numbers: Tensor) -> Images:
        """A copy with the images of these numbers only, int64 `[n]`, in this order; it shares the pixels."""
        numbers = numbers.cpu()
        return replace(self, chosen=numbers if self.chosen is None else self.chosen[numbers])

    def batches(self, size: int = 500) -> Iterator[Tensor]:
        """The bytes of all images, each once, neither augmented nor normalised.

        Yields:
            uint8 `[n, C, H, W]`, n at most `size`.
        """
        numbers = torch.arange(self._count) if self.chosen is None else self.chosen
        for part in numbers.split(size):
            yield self.images[part.to(self.images.device)]

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The examples with these numbers: images `[*index.shape, C, H, W]`, labels `[*index.shape]`.

        Args:
            index: example numbers, int64 of any shape.

        Returns:
            Both, on the images' device. Numbers are computed on the CPU and only sent there: a GPU is not waited for.
        """
        number, device = index.flatten().cpu(), self.images.device
        image = number % self._count
        if self.chosen is not None:
            image = self.chosen[image]
        place = image.to(device, non_blocking=True)
        x = self.images[place]
        if self.policy is not None or self.augment == "crop-flip":
            copy = number // self._count
            several = copy.unique().tolist()
            for k in several:
                if len(several) == 1:
                    x = self._augmented(x, image, self.epoch + k)
                else:
                    rows = (copy == k).nonzero().flatten()
                    there = rows.to(device, non_blocking=True)
                    x[there] = self._augmented(x[there], image[rows], self.epoch + k)
        mean, std = (_by_channel(tuple(v), self.dtype, device) for v in (self.mean, self.std))
        x = (x.to(self.dtype) / 255 - mean) / std
        return x.reshape(*index.shape, *x.shape[1:]), self.labels[place].reshape(index.shape)

    def _augmented(self, x: Tensor, image: Tensor, epoch: int) -> Tensor:
        """Applies the policy, crop and flip of an epoch to images uint8 `[n, C, H, W]` with the numbers `image [n]`."""
        if self.first_clean and epoch == 0:
            return x
        if self.policy is not None:
            x = self.policy(x, self.seed, epoch, image)
        if self.augment == "crop-flip":
            x = crop_flip(x, self.seed, epoch, image.to(x.device, non_blocking=True), self.padding, self.flip)
        return x


@lru_cache(maxsize=64)
def _by_channel(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """One number for each channel, `[C, 1, 1]`; it is shared, so it must not be modified."""
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]
