"""Layers that several families share: convolutions, norms, pools and stems in every `Form`. Step 3 of a training step.

All of them run under `torch.func.vmap`, are differentiable to any order, and have deterministic gradients on every
device. In the default form they are torch's own `Conv2d` and `BatchNorm2d`. The names of a stem's and a pool's
parameters never depend on padding, convolution or norm.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.models.form import Form


def pad(x: Tensor, padding: tuple[int, int], mode: str) -> Tensor:
    """Pads images like `torch.nn.functional.pad`, whose gradients on CUDA are not deterministic.

    Args:
        x: `[n, C, H, W]`.
        padding: rows above and below, columns left and right.
        mode: "reflect", "replicate" or "circular".

    Returns:
        `[n, C, H + 2 rows, W + 2 columns]`.

    Raises:
        ValueError: for images that are too small for reflect or circular padding.
    """
    for dim, width in zip((-2, -1), padding, strict=True):
        size = x.shape[dim]
        least = {"reflect": width + 1, "replicate": 1, "circular": width}[mode]
        if size < least:
            raise ValueError(
                f"{mode} padding of {width} needs a map of at least {least} pixels, and this layer sees {size}:"
                " choose zeros or replicate, or larger images"
            )
        if mode == "reflect":
            before, after = x.narrow(dim, 1, width).flip(dim), x.narrow(dim, size - 1 - width, width).flip(dim)
        elif mode == "circular":
            before, after = x.narrow(dim, size - width, width), x.narrow(dim, 0, width)
        else:
            before, after = (torch.cat([x.narrow(dim, at, 1)] * width, dim) if width else x for at in (0, size - 1))
        x = torch.cat((before, x, after), dim) if width else x
    return x


class PaddedConv2d(nn.Conv2d):
    """A convolution in any padding mode, with `pad`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode == "zeros":
            return super()._conv_forward(input, weight, bias)
        assert not isinstance(self.padding, str)
        padded = pad(input, (self.padding[0], self.padding[1]), self.padding_mode)
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)


class StandardizedConv2d(PaddedConv2d):
    """A convolution with the weight `(W - mean) / sqrt(variance + 1e-5)`, by output channel (arXiv 1903.10520).

    Mean and (biased) variance are taken over the weights of one output channel. The scale of W has no effect, so a norm
    should follow.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        variance, mean = torch.var_mean(weight, (1, 2, 3), correction=0, keepdim=True)
        return super()._conv_forward(input, (weight - mean) * (variance + 1e-5).rsqrt(), bias)


class MaxPool(nn.MaxPool2d):
    """A max-pool that returns maps of one pixel in width or height unchanged."""

    def forward(self, input: Tensor) -> Tensor:
        """`[n, C, H, W]` to `[n, C, H / 2, W / 2]`, or unchanged."""
        return input if min(input.shape[-2:]) < 2 else super().forward(input)


class AvgPool(nn.AvgPool2d):
    """An average pool that returns maps of one pixel in width or height unchanged."""

    def forward(self, input: Tensor) -> Tensor:
        """`[n, C, H, W]` to `[n, C, H / 2, W / 2]`, or unchanged."""
        return input if min(input.shape[-2:]) < 2 else super().forward(input)


class GlobalPool(nn.Sequential):
    """The mean over all pixels: `[n, C, H, W]` to `[n, C]`."""

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def halving_pool(stride: int) -> nn.AvgPool2d:
    """The average pool of a shortcut; for odd sizes, too, its output has the size of a convolution with this stride."""
    return nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)


def conv(form: Form, channels: int, width: int, size: int, stride: int = 1, bias: bool | None = None) -> nn.Conv2d:
    """A convolution whose output has the size of its input, divided by the stride.

    Args:
        form: padding mode and kind of the convolution.
        channels: input channels.
        width: output channels.
        size: of the kernel, odd.
        stride: of the kernel.
        bias: whether it has a bias; None: only if the form has no norm.

    Returns:
        The layer, with torch's initialisation.
    """
    kind: type[nn.Conv2d] = nn.Conv2d if form.padding_mode == "zeros" else PaddedConv2d
    if form.convolution == "weight-standardized":
        kind = StandardizedConv2d
    bias = form.norm in ("none", "skipinit") if bias is None else bias
    return kind(channels, width, size, stride, size // 2, bias=bias, padding_mode=form.padding_mode)


def norm(form: Form, width: int) -> nn.Module:
    """The normalisation layer of `width` channels; an identity if the form has none.

    Returns:
        The layer. A group norm has the largest number of groups that divides the width and is at most 32, and at most
        a quarter of the width.
    """
    if form.norm == "batch":
        return nn.BatchNorm2d(width)
    if form.norm != "group":
        return nn.Identity()
    groups = next(g for g in range(max(1, min(32, width // 4)), 0, -1) if width % g == 0)
    return nn.GroupNorm(groups, width)


def stem(form: Form, channels: int, width: int, activated: bool = True) -> nn.Sequential:
    """The first layers of a ResNet, up to its stages.

    small: a 3x3 convolution. standard: 7x7 with stride 2, and a 3x3 max-pool with stride 2 (arXiv 1512.03385).
    efficient: three 3x3 convolutions, the first with stride 2 and the first two with half the width, and the same
    max-pool (arXiv 1812.01187). A norm and a ReLU follow each convolution.

    Args:
        form: kind of stem, convolution and norm.
        channels: of the images.
        width: output channels.
        activated: whether a ReLU follows the last convolution.

    Returns:
        The layers.
    """
    half = width // 2
    convolutions = {
        "small": [(channels, width, 3, 1)],
        "standard": [(channels, width, 7, 2)],
        "efficient": [(channels, half, 3, 2), (half, half, 3, 1), (half, width, 3, 1)],
    }[form.stem]
    layers: list[nn.Module] = []
    for incoming, outgoing, size, stride in convolutions:
        layers += [conv(form, incoming, outgoing, size, stride), norm(form, outgoing), nn.ReLU()]
    if not activated:
        layers[-1] = nn.Identity()
    if form.stem != "small":
        layers.append(MaxPool(3, 2, 1))
    return nn.Sequential(*layers)


def initialise(module: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Sets the weight of each convolution to Kaiming normal numbers (arXiv 1502.01852), and its bias to 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
