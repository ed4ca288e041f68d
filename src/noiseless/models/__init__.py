"""Models by name, with keyed initialisation."""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from noiseless import keyed
from noiseless.errors import UnknownNameError
from noiseless.models.resnet import RESNETS, Norm, ResNet

__all__ = ["ResNet", "build", "names"]


def names() -> list[str]:
    """The models that `build` knows."""
    return sorted(RESNETS, key=lambda name: int(name.removeprefix("resnet")))


def build(name: str, channels: int, classes: int, norm: Norm = "batch", seed: int = 0) -> nn.Module:
    """A model with initial parameters that are a function of the seed.

    Args:
        name: see `names`.
        channels: of the images.
        classes: outputs.
        norm: normalisation layers.
        seed: keys the initialisation.

    Returns:
        The model, on the CPU in float32.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name not in RESNETS:
        raise UnknownNameError("model", name, names())
    if norm not in get_args(Norm):
        raise UnknownNameError("norm", norm, get_args(Norm))
    with keyed.torch_generators(seed, "init", 0, 0, torch.device("cpu")):
        return RESNETS[name](channels, classes, norm)
