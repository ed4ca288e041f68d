"""Layers that several families share: convolutions, norms, pools and stems in every form. Step 3 of a training step.

All of them run under `torch.func.vmap`, are differentiable to any order, and have deterministic gradients on every
device. The plain form is torch's own `Conv2d` and `BatchNorm2d`. A stem's and a pool's state names never depend on
padding, convolution or norm.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.models.form import Form


def pad(x: Tensor, padding: tuple[int, int], mode: str) -> Tensor:
    """Frames images as `torch.nn.functional.pad` does, in elementary steps (its gradients on CUDA change with the run).

    Args:
        x: `[n, C, H, W]`.
        padding: rows above and below, columns left and right.
        mode: "reflect", "replicate" or "circular".

    Returns:
        `[n, C, H + 2 rows, W + 2 columns]`.

    Raises:
        ValueError: for images that are too small to be reflected or to go round.
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
    """A convolution in any padding mode."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.padding_mode == "zeros":
            return super()._conv_forward(input, weight, bias)
        assert not isinstance(self.padding, str)
        framed = pad(input, (self.padding[0], self.padding[1]), self.padding_mode)
        return F.conv2d(framed, weight, bias, self.stride, 0, self.dilation, self.groups)


class StandardizedConv2d(PaddedConv2d):
    """A convolution with the weight `(W - mean) / sqrt(variance + 1e-5)`, by output channel (arXiv 1903.10520).

    Mean and (biased) variance are of the I numbers that make one output channel. The weight's own scale is lost, so a
    norm should follow.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        variance, mean = torch.var_mean(weight, (1, 2, 3), correction=0, keepdim=True)
        return super()._conv_forward(input, (weight - mean) * (variance + 1e-5).rsqrt(), bias)


class MaxPool(nn.MaxPool2d):
    """A max-pool that leaves maps alone which are one pixel wide or high: nothing is left to be pooled."""

    def forward(self, input: Tensor) -> Tensor:
        """`[n, C, H, W]` to `[n, C, H / 2, W / 2]`, or as it is."""
        return input if min(input.shape[-2:]) < 2 else super().forward(input)


class AvgPool(nn.AvgPool2d):
    """An average pool that leaves maps alone which are one pixel wide or high."""

    def forward(self, input: Tensor) -> Tensor:
        """`[n, C, H, W]` to `[n, C, H / 2, W / 2]`, or as it is."""
        return input if min(input.shape[-2:]) < 2 else super().forward(input)


class GlobalPool(nn.Sequential):
    """The mean over all pixels: `[n, C, H, W]` to `[n, C]`."""

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def halving_pool(stride: int) -> nn.AvgPool2d:
    """The average pool of a shortcut: an odd map leaves as many pixels as the stride-2 convolution beside it."""
    return nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)


def conv(form: Form, channels: int, width: int, size: int, stride: int = 1, bias: bool | None = None) -> nn.Conv2d:
    """A convolution that keeps the map's size, up to its stride.

    Args:
        form: gives padding mode and kind.
        channels: that come in.
        width: channels that go out.
        size: of the kernel, odd.
        stride: of the kernel.
        bias: None: where no norm follows.

    Returns:
        The layer, initialised as torch does.
    """
    kind: type[nn.Conv2d] = nn.Conv2d if form.padding_mode == "zeros" else PaddedConv2d
    if form.convolution == "weight-standardized":
        kind = StandardizedConv2d
    bias = form.norm in ("none", "skipinit") if bias is None else bias
    return kind(channels, width, size, stride, size // 2, bias=bias, padding_mode=form.padding_mode)


def norm(form: Form, width: int) -> nn.Module:
    """The normalisation of `width` channels; an identity where there is none.

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
        form: gives the stem's kind.
        channels: of the images.
        width: channels that go out.
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
    """Kaiming normal (arXiv 1502.01852) for each convolution, 0 for its bias."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
