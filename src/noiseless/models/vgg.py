"""VGG with batch norm (Simonyan and Zisserman, arXiv 1409.1556) for small images.

Five stages of 3x3 convolutions, each followed by a max-pool, then one linear layer, as in arXiv 2109.14119. State names
are `features.*` and `classifier.*`.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from noiseless.models.family import Family
from noiseless.models.form import CHOICES, Form
from noiseless.models.layers import GlobalPool, MaxPool, conv, initialise, norm

WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """A VGG.

    A map of one pixel in width or height is not pooled again; the mean over the pixels of the last map goes to the
    linear layer.

    Args:
        depths: convolutions in each stage.
        widths: channels of each stage.
        channels: of the images.
        classes: outputs.
        form: norm, padding mode and convolution.
    """

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], channels: int, classes: int, form: Form):
        super().__init__()
        layers: list[nn.Module] = []
        incoming = channels
        for depth, width in zip(depths, widths, strict=True):
            for _ in range(depth):
                layers += [conv(form, incoming, width, 3, bias=True), norm(form, width), nn.ReLU()]
                incoming = width
            layers.append(MaxPool(2))
        self.features = nn.Sequential(*layers)
        self.pool = GlobalPool()
        self.classifier = nn.Linear(incoming, classes)
        initialise(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[n, channels, H, W]` to class scores `[n, classes]`."""
        return self.classifier(self.pool(self.features(x)))


def _family(*depths: int) -> Family:
    return Family(
        partial(VGG, depths, WIDTHS),
        {
            "norm": ("group", "none"),
            "padding_mode": CHOICES["padding_mode"],
            "convolution": CHOICES["convolution"],
        },
        "a VGG is one chain of 3x3 convolutions, without residual branches",
    )


FAMILIES = {
    "vgg11": _family(1, 1, 2, 2, 2),
    "vgg13": _family(2, 2, 2, 2, 2),
    "vgg16": _family(2, 2, 3, 3, 3),
    "vgg19": _family(2, 2, 4, 4, 4),
}
