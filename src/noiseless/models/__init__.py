"""Models by name, with keyed initialisation: families for small images, adapters for torchvision, timm and one's own.

What a training step differentiates (step 3). Every family comes in the forms of `Form` that make sense for it, runs
under `torch.func.vmap` and is differentiable twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from noiseless import keyed
from noiseless.errors import UnknownNameError
from noiseless.models import adapters, densenet, linear, nfnet, pyramidnet, resnet, speednet, vgg
from noiseless.models.family import Family
from noiseless.models.form import Form
from noiseless.models.resnet import ResNet
from noiseless.models.speednet import Whitening

__all__ = ["Form", "ResNet", "build", "names", "outline", "whiten"]

_ROOMS = (resnet, densenet, vgg, pyramidnet, nfnet, speednet, linear)
_FAMILIES: Mapping[str, Family] = {name: family for room in _ROOMS for name, family in room.FAMILIES.items()}


def names() -> list[str]:
    """The models that `build` makes by itself, by family and depth; `build` says what other names it takes."""

    def by_depth(name: str) -> tuple[str, int]:
        family, depth = re.fullmatch(r"(\D+)(\d*)", name).groups()  # type: ignore[union-attr]
        return family, int(depth or 0)

    return sorted(_FAMILIES, key=by_depth)


def build(
    name: str,
    channels: int,
    classes: int,
    form: Form | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """A model with initial parameters that are a function of the seed.

    Args:
        name: one of `names`, `torchvision:NAME`, `timm:NAME`, or `package.module:function` for a function of one's own
            that is called with `channels`, `classes` and the options, and gives a module.
        channels: of the images.
        classes: outputs.
        form: choices that families share; None: the default. A choice that a family has not is refused.
        seed: keys the initialisation.
        options: further arguments, for models that take some.
        size: of the images, `(H, W)`, where it is known. The linear model needs it; with it, a model from elsewhere is
            asked once whether it takes such images.

    Returns:
        The model, on the CPU in float32.

    Raises:
        UnknownNameError: with the nearest names.
        ValueError: for a form or options that the model does not have, or a model that cannot be made.
    """
    with keyed.torch_generators(seed, "init", 0, 0, torch.device("cpu")):
        return _make(name, channels, classes, form or Form(), options or {}, size)


def whiten(model: nn.Module, batches: Iterable[Tensor], std: Sequence[float]) -> None:
    """Fits the fixed first layer of a model to training images, where it has one that depends on them.

    Args:
        model: one with a `Whitening` layer is changed; others stay as they are, and no image is read.
        batches: the images, uint8 `[n, C, H, W]` each.
        std: by which each channel's pixels are divided, in units of 255.
    """
    for layer in model.modules():
        if isinstance(layer, Whitening):
            layer.fit(batches, std)


def outline(
    name: str,
    channels: int = 3,
    classes: int = 10,
    form: Form | None = None,
    options: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = (32, 32),
) -> nn.Module:
    """The model without memory for its parameters (on torch's meta device): to count them, or to follow shapes."""
    with torch.device("meta"):
        return _make(name, channels, classes, form or Form(), options or {}, size)


def _make(
    name: str, channels: int, classes: int, form: Form, options: Mapping[str, Any], size: tuple[int, int] | None
) -> nn.Module:
    if ":" in name:
        return adapters.build(name, channels, classes, form, options, size)
    if name not in _FAMILIES:
        raise UnknownNameError("model", name, [*names(), *adapters.PLACES])
    return _FAMILIES[name].build(name, channels, classes, form, options, size)
