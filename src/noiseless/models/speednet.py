"""Small fast networks for CIFAR, like those of its speedruns (airbench, arXiv 2404.00498).

A fixed 2x2 convolution that whitens patches of the training images, three stages of two 3x3 convolutions, and a linear
head with a scaled output. State names are `whiten.*`, `stages.*` and `head.*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.models.family import Family
from noiseless.models.form import CHOICES, Form
from noiseless.models.layers import MaxPool, conv, norm

EPSILON = 5e-4
"""added to each eigenvalue of the covariance of normalised patches (arXiv 2404.00498)"""
SCALE = 1 / 9
"""factor of the head's output (arXiv 2404.00498)"""
_SIDE = 2
"""pixels of a patch's side"""


class Whitening(nn.Module):
    """A 2x2 convolution whose fixed weights whiten patches; only its bias is trained.

    With `C = sum_i lambda_i v_i v_i^T` the covariance of the patches `[4 channels]`, the weights are the rows
    `v_i / sqrt(lambda_i + 5e-4)`, in descending order of the eigenvalues, followed by the same rows times -1. Until
    `fit` is called, the rows are random and orthonormal.

    Args:
        channels: of the images.
    """

    weight: Tensor

    def __init__(self, channels: int):
        super().__init__()
        length = channels * _SIDE**2
        self.register_buffer("weight", torch.empty(2 * length, channels, _SIDE, _SIDE))
        self.bias = nn.Parameter(torch.zeros(2 * length))
        rows = nn.init.orthogonal_(torch.empty(length, length))
        self._write(rows)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to `[n, 8 channels, H - 1, W - 1]`."""
        return F.conv2d(x, self.weight, self.bias)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], std: Sequence[float]) -> None:
        """Sets the weights to those that whiten the patches of some images.

        The sums over the bytes are exact (whole numbers below 2**53), so the weights depend neither on the order of the
        images nor on the number of threads.

        Args:
            batches: images, uint8 `[n, channels, H, W]` each.
            std: by which each channel's pixels are divided, in units of 255.
        """
        length = self.weight[0].numel()
        count, total = 0, torch.zeros(length, dtype=torch.float64)
        products = torch.zeros(length, length, dtype=torch.float64)
        for images in batches:
            patches = images.cpu().double().unfold(2, _SIDE, 1).unfold(3, _SIDE, 1)  # [n, C, H - 1, W - 1, 2, 2]
            patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, length)
            count += len(patches)
            total += patches.sum(0)
            products += patches.T @ patches
        covariance = products / count - torch.outer(total / count, total / count)
        scale = 255 * torch.tensor(std, dtype=torch.float64).repeat_interleave(_SIDE**2)
        values, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
        rows = (vectors / (values.clamp(min=0) + EPSILON).sqrt()).T.flip(0)
        first = rows.gather(1, rows.abs().argmax(1, keepdim=True))  # an eigenvector's sign is arbitrary
        self._write(rows * first.sign())

    def _write(self, rows: Tensor) -> None:
        self.weight.copy_(torch.cat((rows, -rows)).reshape(self.weight.shape))


class SpeedNet(nn.Module):
    """Whitening, three stages, and a linear head on the largest value of each channel.

    A stage is a 3x3 convolution, a 2x2 max-pool, a norm, GELU, a 3x3 convolution, a norm, GELU. Convolutions have
    torch's initialisation, but each of the first `min(in, out)` output channels copies the input channel of the same
    number.

    Args:
        widths: channels of the stages.
        channels: of the images.
        classes: outputs.
        form: norm, padding mode and convolution.
    """

    prefers_channels_last = True
    """whether float32 images keep channels-last format though most sums are long: contiguous ones cost speednet256 14 %
    of a sweep, and take its gradient's error from 1.4 times that of contiguous PyTorch to 1.0 times"""

    def __init__(self, widths: Sequence[int], channels: int, classes: int, form: Form):
        super().__init__()
        self.whiten = Whitening(channels)
        layers: list[nn.Module] = []
        incoming = len(self.whiten.bias)
        for width in widths:
            layers += [conv(form, incoming, width, 3), MaxPool(2), norm(form, width), nn.GELU()]
            layers += [conv(form, width, width, 3), norm(form, width), nn.GELU()]
            incoming = width
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(incoming, classes, bias=False)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.dirac_(layer.weight[: layer.in_channels].data)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to class scores `[n, classes]`."""
        x = self.stages(F.gelu(self.whiten(x)))
        return self.head(x.amax((2, 3))) * SCALE


def _family(*widths: int) -> Family:
    choices = {"norm": ("group", "none")} | {name: CHOICES[name] for name in ("padding_mode", "convolution")}
    why = "a SpeedNet is one chain of convolutions, without residual branches"
    return Family(partial(SpeedNet, widths), choices, why)


FAMILIES = {"speednet128": _family(32, 128, 128), "speednet256": _family(64, 256, 256)}
