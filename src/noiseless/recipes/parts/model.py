"""The part of a recipe about the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Model:
    """The model, its initial parameters and its arithmetic."""

    name: str = "resnet8"
    """model: resnet18, densenet121, vgg16, ..., torchvision:NAME, timm:NAME or package.module:function"""
    norm: Literal["batch", "group", "none", "skipinit"] = "batch"
    """normalisation layers of the model; skipinit: none, and a learned scale from 0 on each residual branch"""
    stem: Literal["small", "standard", "efficient"] = "small"
    """first layers: one 3x3 convolution, 7x7 with stride and pool, or three 3x3 with stride and pool"""
    shortcut: Literal["A", "B", "C"] = "C"
    """of a ResNet, where shapes change: 1x1 convolution; with norm; average pool, 1x1 convolution and norm"""
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"
    """what convolutions see beyond the image's edge"""
    convolution: Literal["standard", "weight-standardized"] = "standard"
    """kind of the convolutions"""
    zero_init: bool = False
    """residual branches begin at zero"""
    options: str = ""
    """further arguments of the model, as in a call: NAME=VALUE,NAME=VALUE"""
    init: str | None = None
    """file with initial parameters and buffers: safetensors, torch.save or published; none: drawn from the seed"""
    dtype: Literal["float32", "float64"] = "float32"
    """of parameters, activations and gradients"""
    autocast: Literal["none", "bfloat16"] = "none"
    """convolutions and matrix products in bfloat16 while training; parameters, gradients and sums stay as they are"""
