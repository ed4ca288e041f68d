"""Images as examples: bytes in memory, normalised and augmented as they are taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from noiseless.data import statistics
from noiseless.data.augment import crop_flip
from noiseless.data.policies import Policy
from noiseless.errors import UnknownNameError


@dataclass(frozen=True)
class Facts:
    """What is known of a set's contents without reading them again."""

    mean: list[float]
    std: list[float]
    sha256: str


@dataclass(frozen=True)
class ImageSet:
    """Labelled images in two parts."""

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
    """whether the images are small enough to live on the device; if not, they stay where they are, memory-mapped"""
    facts: Facts | None = None
    """of these very tensors, where they are recorded beside them; None: they are computed when asked for"""

    @property
    def classes(self) -> int:
        """Number of classes: the largest training label plus one."""
        return int(self.y_train.max()) + 1

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the training images' pixels a channel, in units of 255.

        Returns:
            Both from exact whole sums over the bytes, so that pixels which are all alike have the deviation 0.
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
    """One part of an image set as `Examples`: `take` gives normalised float images `[..., C, H, W]` and labels.

    An example's number is `copy * N + image`: with `copies` above 1 it stands for a set that holds each image that many
    times, each augmented by draws of its own; nothing of it is stored. An image passes the policy, then crop and flip,
    as bytes; then it is normalised.
    """

    images: Tensor
    """uint8 `[N, C, H, W]`"""
    labels: Tensor
    """int64 `[N]`"""
    mean: Sequence[float]
    """a channel, in units of 255"""
    std: Sequence[float]
    """a channel, in units of 255"""
    dtype: torch.dtype = torch.float32
    augment: Literal["none", "crop-flip"] = "none"
    padding: int = 4
    """pixels, of the crop"""
    flip: float = 0.5
    """probability"""
    seed: int = 0
    epoch: int = 0
    """keys the draws of the first copy; copy k has epoch + k"""
    copies: int = 1
    policy: Policy | None = None
    """None: none"""
    first_clean: bool = False
    """the copy of epoch 0, the first of a fixed set, is left as it is"""
    chosen: Tensor | None = None
    """int64 `[n]` on their device, numbers of the images that these are; None: all. An image's number keys its draws"""

    def __post_init__(self) -> None:
        if self.augment not in ("none", "crop-flip"):
            raise UnknownNameError("augmentation", self.augment, ("none", "crop-flip"))

    def __len__(self) -> int:
        return self._count * self.copies

    @property
    def _count(self) -> int:
        return len(self.images if self.chosen is None else self.chosen)

    def only(self, numbers: Tensor) -> Images:
        """The images of these numbers, int64 `[n]`, alone and in this order; nothing is copied."""
        numbers = numbers.to(self.images.device)
        return replace(self, chosen=numbers if self.chosen is None else self.chosen[numbers])

    def batches(self, size: int = 500) -> Iterator[Tensor]:
        """The images' bytes as they are, each once: neither augmented nor normalised.

        Yields:
            uint8 `[n, C, H, W]`, n at most `size`.
        """
        numbers = torch.arange(self._count, device=self.images.device) if self.chosen is None else self.chosen
        for part in numbers.split(size):
            yield self.images[part]

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The examples of these numbers: images `[*index.shape, C, H, W]`, labels `[*index.shape]`."""
        number = index.flatten().to(self.images.device)
        image = number % self._count
        if self.chosen is not None:
            image = self.chosen[image]
        x = self.images[image]
        if self.policy is not None or self.augment == "crop-flip":
            copy = number // self._count
            for k in copy.unique().tolist():
                which = copy == k
                x[which] = self._augmented(x[which], image[which], self.epoch + k)
        mean, std = (torch.tensor(v, dtype=self.dtype, device=x.device)[:, None, None] for v in (self.mean, self.std))
        x = (x.to(self.dtype) / 255 - mean) / std
        return x.reshape(*index.shape, *x.shape[1:]), self.labels[image].reshape(index.shape)

    def _augmented(self, x: Tensor, image: Tensor, epoch: int) -> Tensor:
        """Images uint8 `[n, C, H, W]` of these numbers after the epoch's policy, crop and flip."""
        if self.first_clean and epoch == 0:
            return x
        if self.policy is not None:
            x = self.policy(x, self.seed, epoch, image)
        if self.augment == "crop-flip":
            x = crop_flip(x, self.seed, epoch, image, self.padding, self.flip)
        return x
