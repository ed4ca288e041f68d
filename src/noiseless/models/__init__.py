"""Models by name, with keyed initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from noiseless import keyed
from noiseless.errors import UnknownNameError
from noiseless.models.form import Form
from noiseless.models.resnet import RESNETS, ResNet

__all__ = ["Form", "ResNet", "build", "names"]


def names() -> list[str]:
    """The models that `build` knows."""
    return sorted(RESNETS, key=lambda name: int(name.removeprefix("resnet")))


def build(
    name: str,
    channels: int,
    classes: int,
    form: Form | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A model with initial parameters that are a function of the seed.

    Args:
        name: see `names`.
        channels: of the images.
        classes: outputs.
        form: choices that families share; None: the default.
        seed: keys the initialisation.
        options: further arguments, for models that take some.

    Returns:
        The model, on the CPU in float32.

    Raises:
        UnknownNameError: with the nearest names.
    """
    if name not in RESNETS:
        raise UnknownNameError("model", name, names())
    with keyed.torch_generators(seed, "init", 0, 0, torch.device("cpu")):
        return RESNETS[name](channels, classes, (form or Form()).norm)
