"""Residual networks for small images (He et al., arXiv 1512.03385; stem and shortcuts as in arXiv 2109.14119).

By default the stem is a 3x3 convolution without pooling, and where shapes change, the shortcut is an average pool, a
1x1 convolution and a norm ("downsample C"). State names (`stem.*`, `layers.*`, `fc.*`) are those of the paper's
published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from noiseless.models.family import Family
from noiseless.models.form import CHOICES, Form
from noiseless.models.layers import GlobalPool, conv, halving_pool, initialise, norm, stem


class Residual(nn.Module):
    """A residual branch and its shortcut.

    With norm batch, group or none, the output is `relu(branch(x) + shortcut(x))`. With skipinit (arXiv 2002.10444),
    whose blocks are pre-activated, it is `shortcut(x) + skip_scale * branch(relu(x))`, where skip_scale is learned,
    starting at 0; the input of a shortcut with a convolution is then `relu(x)`, too.
    """

    downsample: nn.Module
    relu: nn.ReLU

    def __init__(self, form: Form):
        super().__init__()
        self.skip_scale = nn.Parameter(torch.zeros(())) if form.norm == "skipinit" else None

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to `[n, expansion * width, H / stride, W / stride]`."""
        if self.skip_scale is None:
            return self.relu(self.branch(x) + self.downsample(x))
        active = self.relu(x)
        shortcut = x if isinstance(self.downsample, nn.Identity) else self.downsample(active)
        return shortcut + self.skip_scale * self.branch(active)

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch, its last norm included."""
        raise NotImplementedError

    def last_norm(self) -> nn.Module:
        """The norm at the end of the branch."""
        raise NotImplementedError


class Basic(Residual):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, form: Form):
        super().__init__(form)
        self.conv1, self.bn1 = conv(form, channels, width, 3, stride), norm(form, width)
        self.conv2, self.bn2 = conv(form, width, width, 3), norm(form, width)
        self.downsample = _shortcut(form, channels, width, stride)
        self.relu = nn.ReLU()

    def branch(self, x: Tensor) -> Tensor:
        """Two convolutions; the first has the stride."""
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))

    def last_norm(self) -> nn.Module:
        """The norm after the second convolution."""
        return self.bn2


class Bottleneck(Residual):
    """1x1, 3x3 (with the stride) and 1x1 convolutions to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, form: Form):
        super().__init__(form)
        self.conv1, self.bn1 = conv(form, channels, width, 1), norm(form, width)
        self.conv2, self.bn2 = conv(form, width, width, 3, stride), norm(form, width)
        self.conv3, self.bn3 = conv(form, width, 4 * width, 1), norm(form, 4 * width)
        self.downsample = _shortcut(form, channels, 4 * width, stride)
        self.relu = nn.ReLU()

    def branch(self, x: Tensor) -> Tensor:
        """Three convolutions; the second has the stride."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))

    def last_norm(self) -> nn.Module:
        """The norm after the third convolution."""
        return self.bn3


class ResNet(nn.Module):
    """A ResNet.

    Args:
        block: `Basic` or `Bottleneck`.
        depths: blocks in each stage; the first stage has stride 1, the others 2.
        widths: channels of each stage's 3x3 convolutions.
        channels: of the images.
        classes: outputs.
        form: all choices. Without a norm, convolutions have a bias.
    """

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck],
        depths: Sequence[int],
        widths: Sequence[int],
        channels: int,
        classes: int,
        form: Form,
    ):
        super().__init__()
        preactivated = form.norm == "skipinit"
        self.stem = stem(form, channels, widths[0], activated=not preactivated)
        stages, incoming = [], widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: list[nn.Module] = []
            for position in range(depth):
                blocks.append(block(incoming, width, 2 if stage and not position else 1, form))
                incoming = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layers = nn.Sequential(*stages)
        self.pool = GlobalPool()
        if preactivated:
            self.pool.insert(0, nn.ReLU())
        self.fc = nn.Linear(incoming, classes)
        initialise(self)
        if form.zero_init and not preactivated:  # scales of skipinit start at 0 in any case
            for module in self.modules():
                if isinstance(module, Residual):
                    nn.init.zeros_(module.last_norm().weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to class scores `[n, classes]`."""
        return self.fc(self.pool(self.layers(self.stem(x))))


def _shortcut(form: Form, channels: int, width: int, stride: int) -> nn.Module:
    if stride == 1 and channels == width:
        return nn.Identity()
    if form.shortcut == "C":
        return nn.Sequential(halving_pool(stride), conv(form, channels, width, 1), norm(form, width))
    projection = conv(form, channels, width, 1, stride)
    return nn.Sequential(projection, norm(form, width)) if form.shortcut == "B" else nn.Sequential(projection)


def _family(block: type[Basic] | type[Bottleneck], depths: Sequence[int], widths: Sequence[int]) -> Family:
    return Family(partial(ResNet, block, depths, widths), CHOICES)


_WIDE = (64, 128, 256, 512)
FAMILIES = {
    "resnet18": _family(Basic, (2, 2, 2, 2), _WIDE),
    "resnet34": _family(Basic, (3, 4, 6, 3), _WIDE),
    "resnet50": _family(Bottleneck, (3, 4, 6, 3), _WIDE),
    "resnet101": _family(Bottleneck, (3, 4, 23, 3), _WIDE),
    "resnet152": _family(Bottleneck, (3, 8, 36, 3), _WIDE),
    # depth 6 n + 2: n blocks in each of three narrow stages; resnet2 has none, for trials: a stem and a linear head
    **{f"resnet{6 * n + 2}": _family(Basic, (n, n, n), (16, 32, 64)) for n in (0, 1, 3, 5, 9, 18)},
}
