"""Chains of torchvision's operations: drawn for each image, applied to all images that drew the same operation."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

Operation = tuple[str, float]
"""name, and magnitude with its sign"""
METHOD = "_apply_image_or_video_transform"
"""torchvision's method that applies one operation of a chain"""
SPACE = "_AUGMENTATION_SPACE"
"""torchvision's table: operation -> (function of bins, height and width that makes the magnitudes, signed)"""


class Chains:
    """The chains of a RandAugment, AutoAugment or TrivialAugment of `torchvision.transforms.v2`.

    What such a policy draws does not depend on the image, only on its height and width. So a copy of it, whose
    operations note themselves and change nothing, draws the same from the same generator. An operation has the same
    result for an image alone and among others: it is elementwise, samples within the image, or counts its levels. Only
    contrast sums, and its sum of grey levels is of whole numbers, exact in float32 up to 65,793 pixels.
    """

    def __init__(self, transform: nn.Module) -> None:
        self._transform: Any = transform
        self._drawn: list[Operation] = []
        self._recorder = copy.copy(transform)
        self._recorder.__class__ = type("Recorder", (type(transform),), {METHOD: self._note})
        tables: dict[str, tuple[Callable[..., Any], bool]] = getattr(transform, SPACE)
        setattr(self._recorder, SPACE, {name: (cache(table), signed) for name, (table, signed) in tables.items()})

    @staticmethod
    def fit(transform: object) -> bool:
        """Whether the installed version of torchvision applies a policy's operations by the method that is needed."""
        return hasattr(type(transform), METHOD) and hasattr(transform, SPACE)

    def _note(self, image: Tensor, name: str, magnitude: float, *_: Any, **__: Any) -> Tensor:
        self._drawn.append((name, magnitude))
        return image

    def draw(self, image: Tensor) -> list[Operation]:
        """Draws the operations of an image from torch's global CPU generator.

        Args:
            image: uint8 `[C, H, W]`, on the CPU; its values do not matter.

        Returns:
            The operations, in order.
        """
        self._drawn = []
        self._recorder(image)
        return self._drawn

    def apply(self, images: Tensor, chains: list[list[Operation]]) -> Tensor:
        """Applies to each image its operations.

        Args:
            images: uint8 `[n, C, H, W]`, on any device; not changed.
            chains: for each image, its operations.

        Returns:
            uint8 `[n, C, H, W]`.
        """
        images = images.clone()
        transform, place = self._transform, 0
        while True:
            groups: dict[Operation, list[int]] = defaultdict(list)
            for number, chain in enumerate(chains):
                if len(chain) > place:
                    groups[chain[place]].append(number)
            if not groups:
                return images
            for (name, magnitude), members in groups.items():
                rows = torch.tensor(members).to(images.device, non_blocking=True)
                apply = getattr(transform, METHOD)
                images[rows] = apply(images[rows], name, magnitude, transform.interpolation, transform._fill)
            place += 1
