"""Residual networks for small images (He et al., arXiv 1512.03385; stem and shortcuts as in arXiv 2109.14119).

The stem is a 3x3 convolution without pooling; where shapes change, the shortcut is an average pool and a 1x1
convolution ("downsample C"). State names (`stem.*`, `layers.*`, `fc.*`) are those of the paper's published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from noiseless.models.form import Norm


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, norm: Norm):
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, width, 3, norm, stride), _norm(norm, width)
        self.conv2, self.bn2 = _conv(width, width, 3, norm), _norm(norm, width)
        self.downsample = _shortcut(channels, width, stride, norm)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to `[n, width, H / stride, W / stride]`."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions to four times the width, and a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, norm: Norm):
        super().__init__()
        self.conv1, self.bn1 = _conv(channels, width, 1, norm), _norm(norm, width)
        self.conv2, self.bn2 = _conv(width, width, 3, norm, stride), _norm(norm, width)
        self.conv3, self.bn3 = _conv(width, 4 * width, 1, norm), _norm(norm, 4 * width)
        self.downsample = _shortcut(channels, 4 * width, stride, norm)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to `[n, 4 * width, H / stride, W / stride]`."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
    """A small-image ResNet.

    Args:
        block: `Basic` or `Bottleneck`.
        depths: blocks in each stage; the first stage has stride 1, the others 2.
        widths: channels of each stage's 3x3 convolutions.
        channels: of the images.
        classes: outputs.
        norm: normalisation after each convolution. Without one, convolutions have a bias.
    """

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck],
        depths: Sequence[int],
        widths: Sequence[int],
        channels: int,
        classes: int,
        norm: Norm = "batch",
    ):
        super().__init__()
        self.stem = nn.Sequential(_conv(channels, widths[0], 3, norm), _norm(norm, widths[0]), nn.ReLU())
        stages, incoming = [], widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            made = []
            for position in range(depth):
                made.append(block(incoming, width, 2 if stage and not position else 1, norm))
                incoming = width * block.expansion
            stages.append(nn.Sequential(*made))
        self.layers = nn.Sequential(*stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(incoming, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to class scores `[n, classes]`."""
        return self.fc(self.pool(self.layers(self.stem(x))))


def _conv(channels: int, width: int, size: int, norm: Norm, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, size, stride, size // 2, bias=norm == "none")


def _norm(norm: Norm, width: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(min(32, width // 4), width) if norm == "group" else nn.Identity()


def _shortcut(channels: int, width: int, stride: int, norm: Norm) -> nn.Module:
    if stride == 1 and channels == width:
        return nn.Identity()
    # ceil_mode: an odd image leaves as many pixels as the stride-2 convolution beside it
    pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, _conv(channels, width, 1, norm), _norm(norm, width))


def _family(
    block: type[Basic] | type[Bottleneck], depths: Sequence[int], widths: Sequence[int]
) -> Callable[..., ResNet]:
    return lambda channels, classes, norm: ResNet(block, depths, widths, channels, classes, norm)


_WIDE = (64, 128, 256, 512)
RESNETS: dict[str, Callable[..., ResNet]] = {
    "resnet18": _family(Basic, (2, 2, 2, 2), _WIDE),
    "resnet34": _family(Basic, (3, 4, 6, 3), _WIDE),
    "resnet50": _family(Bottleneck, (3, 4, 6, 3), _WIDE),
    "resnet101": _family(Bottleneck, (3, 4, 23, 3), _WIDE),
    "resnet152": _family(Bottleneck, (3, 8, 36, 3), _WIDE),
    # depth 6 n + 2: n blocks in each of three narrow stages
    **{f"resnet{6 * n + 2}": _family(Basic, (n, n, n), (16, 32, 64)) for n in (1, 3, 5, 9, 18)},
}
