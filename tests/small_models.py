"""Small members of every model family for the tests: built like the large ones, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from noiseless import models
from noiseless.models import Form
from noiseless.models.densenet import DenseNet
from noiseless.models.nfnet import NFNet
from noiseless.models.pyramidnet import PyramidNet
from noiseless.models.resnet import Basic, Bottleneck, ResNet
from noiseless.models.speednet import SpeedNet
from noiseless.models.vgg import VGG

MEMBERS: dict[str, Callable[[int, int, Form], nn.Module]] = {
    "resnet": lambda c, k, form: ResNet(Basic, (1, 2, 1), (4, 8, 8), c, k, form),
    "bottleneck": lambda c, k, form: ResNet(Bottleneck, (1, 1), (4, 8), c, k, form),
    "densenet": lambda c, k, form: DenseNet((2, 1, 1, 1), 8, 4, c, k, form),
    "vgg": lambda c, k, form: VGG((1, 1, 2, 1, 1), (4, 8, 8, 8, 8), c, k, form),
    "pyramidnet": lambda c, k, form: PyramidNet(1, False, c, k, form, 10),
    "pyramidnet-bottleneck": lambda c, k, form: PyramidNet(1, True, c, k, form, 4),
    "nfnet": lambda c, k, form: NFNet((1, 2, 1), (16, 16, 32), 4, c, k, form),
    "speednet": lambda c, k, form: SpeedNet((4, 8, 8), c, k, form),
}
"""(channels, classes, form) -> module"""


def member(name: str, channels: int, classes: int, form: Form | None = None, size: int = 8) -> nn.Module:
    """A small member of a family; equal arguments give equal parameters."""
    if name == "linear":
        return models.build("linear", channels, classes, form, size=(size, size))
    torch.manual_seed(0)
    return MEMBERS[name](channels, classes, form or Form())


def perturbed(module: nn.Module) -> nn.Module:
    """Float64, each parameter moved by some random tenths, so that no scale is 0 or 1 and nothing is symmetric."""
    module, rng = module.double(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=rng, dtype=torch.float64), alpha=0.2)
    return module


def images(count: int, channels: int, size: int, classes: int = 3, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Float64 images `[count, channels, size, size]` and classes."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, size, size, generator=rng, dtype=torch.float64)
    return x, torch.arange(count) % classes
