"""PyramidNet (Han, Kim and Kim, arXiv 1610.02915): residual units whose width grows a little at each unit.

Unit k = 1 ... N has the width `floor(16 + alpha k / N)`, the paper's additive pyramid. A branch begins and ends with a
norm and has no ReLU before its first convolution; it is added to the unit's input, padded with channels of zeros. The
map is halved twice, in the shortcut by an average pool.
"""

from __future__ import annotations

from collections import OrderedDict
from math import floor, inf

import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.models.family import Family
from noiseless.models.form import CHOICES, Form
from noiseless.models.layers import GlobalPool, conv, halving_pool, initialise, norm

FIRST = 16
"""channels of the stem"""


class Unit(nn.Module):
    """A residual unit.

    Args:
        channels: input channels.
        convolutions: (width, kernel size, stride) of each convolution in the branch.
        form: norm, padding mode, convolution, zero_init.
    """

    def __init__(self, channels: int, convolutions: list[tuple[int, int, int]], form: Form):
        super().__init__()
        parts: dict[str, nn.Module] = {"bn1": norm(form, channels)}
        incoming = channels
        for k, (width, size, stride) in enumerate(convolutions, 1):
            if k > 1:
                parts[f"relu{k}"] = nn.ReLU()
            parts[f"conv{k}"] = conv(form, incoming, width, size, stride, bias=False)
            parts[f"bn{k + 1}"] = norm(form, width)
            incoming = width
        self.branch = nn.Sequential(OrderedDict(parts))
        strides = max(stride for _, _, stride in convolutions)
        self.pool = nn.Identity() if strides == 1 else halving_pool(strides)
        self.missing = incoming - channels
        """number of channels of zeros that the shortcut adds to the input"""
        if form.zero_init:
            nn.init.zeros_(self.branch[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to `[n, channels + missing, H / stride, W / stride]`."""
        return self.branch(x) + F.pad(self.pool(x), (0, 0, 0, 0, 0, self.missing))


class PyramidNet(nn.Module):
    """A PyramidNet of three stages.

    Args:
        depth: units in each stage.
        bottleneck: whether units have 1x1, 3x3 and 1x1 convolutions, to four times the width, instead of two 3x3 ones.
        channels: of the images.
        classes: outputs.
        form: norm (batch or group), padding mode, convolution, zero_init.
        alpha: channels that all units together add to the stem's 16.

    Raises:
        ValueError: for an alpha that is negative or not finite.
    """

    def __init__(self, depth: int, bottleneck: bool, channels: int, classes: int, form: Form, alpha: float):
        super().__init__()
        if not isinstance(alpha, int | float) or not 0 <= alpha < inf:
            raise ValueError(f"alpha must be a finite number of at least 0, not {alpha!r}")
        self.stem = nn.Sequential(conv(form, channels, FIRST, 3, bias=False), norm(form, FIRST))
        stages, incoming = [], FIRST
        for stage in range(3):
            units: list[nn.Module] = []
            for position in range(depth):
                width = floor(FIRST + alpha * (stage * depth + position + 1) / (3 * depth))
                stride = 2 if stage and not position else 1
                plain = [(width, 3, stride), (width, 3, 1)]
                units.append(
                    Unit(
                        incoming, [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)] if bottleneck else plain, form
                    )
                )
                incoming = 4 * width if bottleneck else width
            stages.append(nn.Sequential(*units))
        self.layers = nn.Sequential(*stages)
        self.pool = nn.Sequential(norm(form, incoming), nn.ReLU(), GlobalPool())
        self.fc = nn.Linear(incoming, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to class scores `[n, classes]`."""
        return self.fc(self.pool(self.layers(self.stem(x))))


def _family(depth: int, bottleneck: bool, alpha: float) -> Family:
    def make(channels: int, classes: int, form: Form, alpha: float = alpha) -> PyramidNet:
        return PyramidNet(depth, bottleneck, channels, classes, form, alpha)

    return Family(
        make,
        {
            "norm": ("group",),
            "padding_mode": CHOICES["padding_mode"],
            "convolution": CHOICES["convolution"],
            "zero_init": CHOICES["zero_init"],
        },
        "a PyramidNet has a 3x3 stem, shortcuts without parameters, and norms at both ends of each branch",
    )


FAMILIES = {
    "pyramidnet110": _family(18, bottleneck=False, alpha=270),  # 2 * 3 * 18 + 2 layers
    "pyramidnet272": _family(30, bottleneck=True, alpha=200),  # 3 * 3 * 30 + 2 layers
}
