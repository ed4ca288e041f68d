"""Cases: timm's and torchvision's models on tiny images. Both are imported only where a model is made."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from module_cases.case import Case, numbers, reals

CLASSES, EXAMPLES = 5, 4


def image_case(name: str, make: Any, pixels: int = 32, **options: Any) -> Case:
    """A classifier of tiny images, in blocks of 2. Where the last batch norm has 2 values, rounding grows to 1e-3."""
    data = (reals(EXAMPLES, 3, pixels, pixels), numbers(CLASSES, EXAMPLES))
    settings = {
        "loss": nn.CrossEntropyLoss(),
        "block": 2,
        "jitter": 0.01,
        "smooth": False,
        # blocks of two images: a change of parameters in their last bit changes the float32 gradient of plain autograd
        # through mnasnet0_5 by 6 % where the sign of an activation changes
        "float32": 1e-1,
        "rounding": 10,
    }
    return Case(name, make, data, **(settings | options))


def _without_dropout(model: nn.Module) -> nn.Module:
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    return model


def _timm(name: str) -> nn.Module:
    import timm

    return _without_dropout(
        timm.create_model(name, num_classes=CLASSES, **({"img_size": 32} if "vit" in name or "coat" in name else {}))
    )


def _torchvision(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of googlenet's initial values
        model: nn.Module = getattr(models, name)(weights=None, num_classes=CLASSES, **options)
    return _without_dropout(model)


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = _torchvision("resnet18").to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.contiguous(memory_format=torch.channels_last))


class Elementary(nn.Module):
    """Hard sigmoid by operations that have a second derivative."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6


def by_elementary(module: nn.Module) -> nn.Module:
    """The module with `Elementary` in place of hard sigmoid."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Hardsigmoid):
                setattr(part, name, Elementary())
    return module.double()


def of_places(output: dict[str, Tensor], target: Tensor) -> Tensor:
    """Cross entropy of each pixel of a segmentation."""
    return F.cross_entropy(output["out"], target, reduction="none")


def _lraspp() -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return _without_dropout(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES))


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES)


def _swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    depths, heads, window = [1, 2], [2, 2], [2, 2]
    return SwinTransformer([4, 4], 8, depths, heads, window, num_classes=CLASSES, stochastic_depth_prob=0.0)


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=CLASSES)


TIMM = [
    image_case(
        f"timm: test_{name}",
        partial(_timm, f"test_{name}"),
        rounding=1e4 if name == "efficientnet_evos" else 10,  # EvoNorm computes in float32 inside
    )
    for name in (
        "byobnet", "coatnet", "convnext", "convnext2", "convnext3", "efficientnet", "efficientnet_evos",
        "efficientnet_gn", "efficientnet_ln", "mambaout", "maxvit", "nfnet", "resnet", "vit", "vit2", "vit3", "vit4",
        "vit_relpos",
    )
]  # fmt: skip
TORCHVISION = [
    image_case(f"torchvision: {name}", partial(_torchvision, name, **options), 64, **settings)
    for name, options, settings in (
        ("resnet18", {}, {}),
        ("mobilenet_v2", {}, {}),
        ("mobilenet_v3_small", {}, {"for_oracle": by_elementary}),
        ("shufflenet_v2_x0_5", {}, {}),
        ("squeezenet1_1", {}, {}),
        ("mnasnet0_5", {}, {}),
        ("efficientnet_b0", {"stochastic_depth_prob": 0.0}, {}),
        ("regnet_y_400mf", {}, {}),
        ("googlenet", {"aux_logits": False, "init_weights": False}, {}),
        ("densenet121", {}, {}),
    )
]
OTHERS = [
    image_case("torchvision: resnet18, eval", partial(_torchvision, "resnet18"), train=False),
    image_case("torchvision: resnet18, channels last", ChannelsLast, 64),
    image_case("torchvision: mobilenet_v3_small, eval", partial(_torchvision, "mobilenet_v3_small"), train=False,
               for_oracle=by_elementary),
    image_case("torchvision: VisionTransformer, 2 layers", _vit),
    image_case("torchvision: SwinTransformer, 2 stages", _swin),
    image_case("torchvision: ConvNeXt, 2 stages", _convnext),
    image_case("torchvision: googlenet, with auxiliary scores", partial(_torchvision, "googlenet", init_weights=False),
               64,
               loss=lambda output, y: F.cross_entropy(output.logits, y, reduction="none")
               + 0.3 * F.cross_entropy(output.aux_logits1, y, reduction="none")),
    Case("torchvision: lraspp_mobilenet_v3_large", _lraspp,
         (reals(EXAMPLES, 3, 32, 32), numbers(CLASSES, EXAMPLES, 32, 32)),
         of_places, for_oracle=by_elementary, rounding=10, block=2, jitter=0.01, smooth=False, float32=1e-2),
]  # fmt: skip
CASES = [*TIMM, *TORCHVISION, *OTHERS]
