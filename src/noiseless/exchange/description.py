"""The description of a model and of its images, from which the model is built again. For exports and imports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from noiseless import models
from noiseless.optim import parse_options
from noiseless.recipes.recipe import Recipe


@dataclass(frozen=True)
class Description:
    """A model, and the images that it expects."""

    model: str
    """name of the model, see `noiseless.models.names`"""
    channels: int
    """channels of an image"""
    classes: int
    """number of outputs"""
    form: models.Form = field(default_factory=models.Form)
    options: Mapping[str, Any] = field(default_factory=dict)
    """further arguments of the model"""
    mean: Sequence[float] | None = None
    """mean of each channel's pixels, in units of 255; None: not known"""
    std: Sequence[float] | None = None
    """standard deviation of each channel's pixels, in units of 255; None: not known"""

    size: tuple[int, int] | None = None
    """height and width of the images, for a model that is built for one size (`linear`); None: any size"""

    def build(self) -> nn.Module:
        """The model with initial parameters."""
        return models.build(self.model, self.channels, self.classes, self.form, options=self.options, size=self.size)

    def normalise(self, images: Tensor) -> Tensor:
        """Images as the model expects them: `(x / 255 - mean) / std`.

        Args:
            images: uint8 `[n, channels, H, W]`.

        Returns:
            float32 of the same shape.

        Raises:
            ValueError: if mean and standard deviation are not known, or if dtype or shape of the images is another.
        """
        if self.mean is None or self.std is None:
            raise ValueError("the mean and standard deviation of this model's images are not known")
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != self.channels:
            expected = f"uint8 [n, {self.channels}, H, W]"
            raise ValueError(f"the images must be {expected}, not {images.dtype} {list(images.shape)}")
        mean, std = (torch.tensor(v, device=images.device)[:, None, None] for v in (self.mean, self.std))
        return (images.float() / 255 - mean) / std


def description_of(recipe: Recipe, classes: int, size: tuple[int, int] | None = None) -> Description:
    """The description of a recipe's model.

    Args:
        recipe: resolved.
        classes: number of outputs.
        size: height and width of the images; kept only if the model is built for one size.

    Returns:
        The description.
    """
    mean, std = recipe.data.mean, recipe.data.std
    assert mean is not None
    options = parse_options(recipe.model.options)
    kept = size if recipe.model.name in OF_ONE_SIZE else None
    return Description(recipe.model.name, len(mean), classes, form_of(recipe), options, mean, std, kept)


OF_ONE_SIZE = ("linear",)
"""models that are built for one size of images"""


def form_of(recipe: Recipe) -> models.Form:
    """The form of a recipe's model."""
    return models.Form(**{f.name: getattr(recipe.model, f.name) for f in fields(models.Form)})
