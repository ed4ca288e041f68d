"""DenseNet-BC (Huang et al., arXiv 1608.06993) for small images.

By default, the stem is a 3x3 convolution with neither norm nor pool, as in arXiv 2109.14119. State names (`features.*`,
`classifier.*`) and initialisation (Kaiming normal, fan in) are torchvision's.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from noiseless.models.family import Family, check_rate
from noiseless.models.form import CHOICES, Form
from noiseless.models.layers import AvgPool, GlobalPool, MaxPool, conv, initialise, norm

BOTTLENECK = 4
"""channels of a layer's 1x1 convolution, as a multiple of the growth"""


class Layer(nn.Sequential):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution; the result is concatenated to the input."""

    def __init__(self, channels: int, growth: int, form: Form, drop_rate: float):
        inner = BOTTLENECK * growth
        parts = {
            "norm1": norm(form, channels),
            "relu1": nn.ReLU(),
            "conv1": conv(form, channels, inner, 1, bias=False),
            "norm2": norm(form, inner),
            "relu2": nn.ReLU(),
            "conv2": conv(form, inner, growth, 3, bias=False),
        }
        if drop_rate:
            parts["drop"] = nn.Dropout(drop_rate)
        super().__init__(OrderedDict(parts))

    def forward(self, input: Tensor) -> Tensor:
        """`[n, channels, H, W]` to `[n, channels + growth, H, W]`."""
        return torch.cat((input, super().forward(input)), 1)  # type: ignore[no-untyped-call]


class DenseNet(nn.Module):
    """A DenseNet.

    Args:
        depths: layers in each dense block. Between blocks, a transition halves the channels and the map; a map of one
            pixel keeps its size.
        stem_width: channels of the stem.
        growth: channels that a layer adds.
        channels: of the images.
        classes: outputs.
        form: norm (batch or group), stem (small or standard), padding mode and convolution.
        drop_rate: dropout at the end of each layer.

    Raises:
        ValueError: if drop_rate is not in [0, 1).
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        stem_width: int,
        growth: int,
        channels: int,
        classes: int,
        form: Form,
        drop_rate: float = 0.0,
    ):
        super().__init__()
        check_rate("drop_rate", drop_rate)
        small = form.stem == "small"
        parts: dict[str, nn.Module] = {
            "conv0": conv(form, channels, stem_width, 3 if small else 7, 1 if small else 2, bias=False)
        }
        if not small:
            parts |= {"norm0": norm(form, stem_width), "relu0": nn.ReLU(), "pool0": MaxPool(3, 2, 1)}
        width = stem_width
        for block, depth in enumerate(depths, 1):
            layers = [(f"denselayer{k + 1}", Layer(width + k * growth, growth, form, drop_rate)) for k in range(depth)]
            parts[f"denseblock{block}"] = nn.Sequential(OrderedDict(layers))
            width += depth * growth
            if block < len(depths):
                parts[f"transition{block}"] = _transition(width, form)
                width //= 2
        parts["norm5"] = norm(form, width)
        self.features = nn.Sequential(OrderedDict(parts))
        self.pool = nn.Sequential(nn.ReLU(), GlobalPool())
        self.classifier = nn.Linear(width, classes)
        initialise(self, "fan_in")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to class scores `[n, classes]`."""
        return self.classifier(self.pool(self.features(x)))


def _transition(width: int, form: Form) -> nn.Sequential:
    parts = {"norm": norm(form, width), "relu": nn.ReLU(), "conv": conv(form, width, width // 2, 1, bias=False)}
    return nn.Sequential(OrderedDict(parts | {"pool": AvgPool(2)}))


def _family(depths: tuple[int, ...], stem_width: int = 64, growth: int = 32) -> Family:
    return Family(
        partial(DenseNet, depths, stem_width, growth),
        {
            "norm": ("group",),
            "stem": ("standard",),
            "padding_mode": CHOICES["padding_mode"],
            "convolution": CHOICES["convolution"],
        },
        "a DenseNet concatenates where a ResNet adds, and needs a norm before each convolution",
    )


FAMILIES = {
    "densenet121": _family((6, 12, 24, 16)),
    "densenet161": _family((6, 12, 36, 24), stem_width=96, growth=48),
    "densenet169": _family((6, 12, 32, 32)),
    "densenet201": _family((6, 12, 48, 32)),
}
