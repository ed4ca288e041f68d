"""NFNet (Brock et al., arXiv 2102.06171): a residual network without normalisation.

Weights are standardised, activations keep variance 1, and a residual branch sees its input divided by the standard
deviation that it would have if all branches had variance 1 and were added with weight alpha: after k blocks of a stage,
`sqrt(1 + k alpha**2)`. By default, the stem has stride 1, and the first stage runs at the resolution of the image; the
stem "standard" is the paper's, which makes the map four times smaller.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.models.family import Family, check_rate
from noiseless.models.form import CHOICES, Form
from noiseless.models.layers import GlobalPool, PaddedConv2d, halving_pool

GELU_GAIN = 1.7015043497085571
"""1 / the standard deviation of gelu of a standard normal number"""
DEPTHS, WIDTHS, GROUP = (1, 2, 6, 3), (256, 512, 1536, 1536), 128
"""of the variant F0: blocks in each stage; channels of each stage; channels in each group of a 3x3 convolution"""


class ScaledConv2d(PaddedConv2d):
    """A convolution with the weight `gain * (W - mean) / sqrt(max(fan_in * variance, 1e-4))`, by output channel.

    Mean and (biased) variance are taken over the fan_in weights of one output channel; gain is learned, starting at 1.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        variance, mean = torch.var_mean(weight, (1, 2, 3), correction=0, keepdim=True)
        scale = (variance * weight[0].numel()).clamp(min=1e-4).rsqrt()
        return super()._conv_forward(input, (weight - mean) * (scale * self.gain), bias)


class Gelu(nn.Module):
    """`1.7015 gelu(x)`: variance 1 for standard normal x."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return F.gelu(x) * GELU_GAIN


class SqueezeExcite(nn.Module):
    """Scales the channels by `2 sigmoid(...)`, a two-layer function of the channels' means (arXiv 1709.01507)."""

    def __init__(self, width: int):
        super().__init__()
        inner = max(1, width // 2)
        self.gate = nn.Sequential(
            GlobalPool(), nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[n, width, H, W]` to the same shape."""
        return 2 * self.gate(x)[..., None, None] * x


class Block(nn.Module):
    """`shortcut + skip_gain * alpha * branch(beta * gelu(x))`; skip_gain is learned, starting at 0.

    The branch has a 1x1, two grouped 3x3 and a 1x1 convolution, then squeeze and excite. Where shapes change, the
    shortcut is an average pool (if the stride is 2) and a 1x1 convolution of the branch's input; elsewhere it is x.

    Args:
        channels: input channels.
        width: output channels; there are half as many within the branch.
        group: channels in each group of the 3x3 convolutions.
        stride: 1 or 2.
        alpha: weight of the branch.
        beta: 1 / the expected standard deviation of x.
        form: padding mode.
        drop_rate: dropout at the end of the branch.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        group: int,
        stride: int,
        alpha: float,
        beta: float,
        form: Form,
        drop_rate: float,
    ):
        super().__init__()
        inner = width // 2
        groups = max(1, inner // group)
        self.alpha, self.beta = alpha, beta
        self.act = Gelu()
        self.branch = nn.Sequential(
            _conv(form, channels, inner, 1), Gelu(),
            _conv(form, inner, inner, 3, stride, groups), Gelu(),
            _conv(form, inner, inner, 3, 1, groups), Gelu(),
            _conv(form, inner, width, 1), SqueezeExcite(width),
        )  # fmt: skip
        if drop_rate:
            self.branch.append(nn.Dropout(drop_rate))
        self.downsample: nn.Module | None = None
        if stride > 1 or channels != width:
            projection = _conv(form, channels, width, 1)
            self.downsample = nn.Sequential(halving_pool(stride), projection) if stride > 1 else projection
        self.skip_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to `[n, width, H / stride, W / stride]`."""
        active = self.act(x) * self.beta
        shortcut = x if self.downsample is None else self.downsample(active)
        return shortcut + self.alpha * self.skip_gain * self.branch(active)


class NFNet(nn.Module):
    """An NFNet.

    Args:
        depths: blocks in each stage.
        widths: channels of each stage.
        group: channels in each group of a 3x3 convolution.
        channels: of the images.
        classes: outputs.
        form: stem (small or standard), padding mode.
        alpha: weight of the branches, see `Block`.
        drop_rate: dropout at the end of each branch.

    Raises:
        ValueError: if alpha is not positive and finite, or drop_rate is not in [0, 1).
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        widths: tuple[int, ...],
        group: int,
        channels: int,
        classes: int,
        form: Form,
        alpha: float = 0.2,
        drop_rate: float = 0.0,
    ):
        super().__init__()
        check_rate("drop_rate", drop_rate)
        if not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be a positive number, not {alpha!r}")
        incoming, layers = channels, list[nn.Module]()
        for part, stride in ((8, 2), (4, 1), (2, 1), (1, 2)):
            width = max(1, widths[0] // 2 // part)
            layers += [_conv(form, incoming, width, 3, 1 if form.stem == "small" else stride), Gelu()]
            incoming = width
        self.stem = nn.Sequential(*layers[:-1])
        stages, variance = [], 1.0
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = list[nn.Module]()
            for position in range(depth):
                stride = 2 if stage and not position else 1
                blocks.append(Block(incoming, width, group, stride, alpha, variance**-0.5, form, drop_rate))
                # the projection in a stage's first block resets the variance to 1
                variance = (variance if position else 1.0) + alpha**2
                incoming = width
            stages.append(nn.Sequential(*blocks))
        self.layers = nn.Sequential(*stages)
        self.head = nn.Sequential(_conv(form, incoming, 2 * incoming, 1), Gelu(), GlobalPool())
        self.fc = nn.Linear(2 * incoming, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                assert module.bias is not None
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to class scores `[n, classes]`."""
        return self.fc(self.head(self.layers(self.stem(x))))


def _conv(form: Form, channels: int, width: int, size: int, stride: int = 1, groups: int = 1) -> ScaledConv2d:
    return ScaledConv2d(channels, width, size, stride, size // 2, groups=groups, padding_mode=form.padding_mode)


def _make(
    channels: int, classes: int, form: Form, variant: int = 0, width: float = 1.0, alpha: float = 0.2,
    drop_rate: float = 0.0,
) -> NFNet:  # fmt: skip
    """The paper's variant F0, F1, ...: `variant + 1` times the depths of F0, and `width` times its widths."""
    if not isinstance(variant, int) or variant < 0:
        raise ValueError(f"variant must be a whole number of at least 0 (that of NFNet-F0), not {variant!r}")
    if not isinstance(width, int | float) or not 0 < width < math.inf:
        raise ValueError(f"width must be a positive factor, not {width!r}")
    group = max(1, round(GROUP * width))
    widths = tuple(2 * group * max(1, round(w / (2 * GROUP))) for w in WIDTHS)
    depths = tuple(depth * (variant + 1) for depth in DEPTHS)
    return NFNet(depths, widths, group, channels, classes, form, alpha, drop_rate)


FAMILIES = {
    "nfnet": Family(
        _make,
        {"stem": ("standard",), "padding_mode": CHOICES["padding_mode"], "zero_init": CHOICES["zero_init"]},
        "an NFNet has no norm, its own scaled convolutions, pooled shortcuts, and branches that start at zero",
    )
}
