"""The linear classifier: each class score is a linear function of all pixels. The smallest model."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from noiseless.models.family import Family
from noiseless.models.form import Form


def _make(channels: int, classes: int, form: Form, size: tuple[int, int] | None) -> nn.Sequential:
    """`W x + b` with x `[channels * H * W]` and torch's initialisation."""
    if size is None:
        raise ValueError("the model linear needs the size of the images: models.build(..., size=(H, W))")
    pixels = size[0] * size[1]
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(channels * pixels, classes)))


FAMILIES = {"linear": Family(_make, {}, "a linear model has neither convolutions nor norms")}
