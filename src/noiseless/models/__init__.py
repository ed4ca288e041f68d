"""Models by name, with keyed initialisation: families for small images, adapters for torchvision, timm and your own.

A model is what a training step differentiates (step 3). Each family supports those choices of `Form` that make sense
for it, runs under `torch.func.vmap` and is differentiable twice.
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
from noiseless.trust import trusting

__all__ = ["Form", "ResNet", "build", "names", "outline", "whiten"]

_MODULES = (resnet, densenet, vgg, pyramidnet, nfnet, speednet, linear)
_FAMILIES: Mapping[str, Family] = {name: family for module in _MODULES for name, family in module.FAMILIES.items()}


def names() -> list[str]:
    """The names of the built-in models, by family and depth; `build` takes names of other packages, too."""

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
    trust: str | Iterable[str] | None = None,
) -> nn.Module:
    """Builds a model. Its initial parameters are a function of the seed.

    Args:
        name: one of `names`, `torchvision:NAME`, `timm:NAME`, or `package.module:function` for your own function, which
            is called with `channels`, `classes` and the options, and returns a module.
        channels: of the images.
        classes: outputs.
        form: choices that families share; None: the default.
        seed: keys the initialisation.
        options: further arguments, for models that take some.
        size: of the images, `(H, W)`; None: not known. The linear model needs it. If it is given, a model from another
            package is tried once on blank images.
        trust: your own functions that may be used, `package.module:function` or `package.module`; None: those of the
            command's flags and of your settings, see `noiseless trust`.

    Returns:
        The model, on the CPU in float32.

    Raises:
        UnknownNameError: for an unknown name, with the nearest known ones.
        ValueError: for a form or options that the model does not have, a function that is not trusted, or a model that
            cannot be built.
    """
    with trusting(trust), keyed.torch_generators(seed, "init", 0, 0, torch.device("cpu")):
        return _make(name, channels, classes, form or Form(), options or {}, size)


def whiten(model: nn.Module, batches: Iterable[Tensor], std: Sequence[float]) -> None:
    """Fits the `Whitening` layer of a model, if it has one, to the training images.

    Args:
        model: without a `Whitening` layer, it is not changed and no image is read.
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
    """Builds a model on torch's meta device, without memory for its parameters: to count them, or to follow shapes."""
    with torch.device("meta"):
        return _make(name, channels, classes, form or Form(), options or {}, size)


def _make(
    name: str, channels: int, classes: int, form: Form, options: Mapping[str, Any], size: tuple[int, int] | None
) -> nn.Module:
    if ":" in name:
        return adapters.build(name, channels, classes, form, options, size)
    if name not in _FAMILIES:
        raise UnknownNameError("model", name, [*names(), *adapters.NAME_PATTERNS])
    return _FAMILIES[name].build(name, channels, classes, form, options, size)
