"""The part of a recipe about the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Model:
    """The model, its initial parameters and its arithmetic."""

    name: str = "resnet8"
    """model: resnet18, densenet121, vgg16, ... (noiseless models shows all), torchvision:NAME, timm:NAME or
    package.module:function"""
    norm: Literal["batch", "group", "none", "skipinit"] = "batch"
    """normalisation layers; skipinit: none, but a learned scale, 0 at first, on each residual branch"""
    stem: Literal["small", "standard", "efficient"] = "small"
    """first layers; small: one 3x3 convolution; standard: a 7x7 convolution with stride and a max-pool; efficient:
    three 3x3 convolutions with stride and a max-pool"""
    shortcut: Literal["A", "B", "C"] = "C"
    """a ResNet's shortcuts where shapes change; A: 1x1 convolution; B: 1x1 convolution and norm; C: average pool, 1x1
    convolution and norm"""
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"
    """how convolutions pad the image at its edges"""
    convolution: Literal["standard", "weight-standardized"] = "standard"
    """kind of convolution layers"""
    zero_init: bool = False
    """initialise residual branches to give zero"""
    options: str = ""
    """further arguments of the model, written as in a call: NAME=VALUE,NAME=VALUE"""
    init: str | None = None
    """initial parameters and buffers: a file (safetensors, torch.save, a published checkpoint), RUN or RUN@STEP, or
    pretrained[:NAME], the weights that torchvision or timm have for the model; the last layer may have another number
    of classes; None: they are drawn from the seed"""
    freeze: tuple[str, ...] = ()
    """parameters that do not move: patterns of their names, such as 'conv1*' 'layer1', of which a module's stands for
    all in it"""
    dtype: Literal["float32", "float64"] = "float32"
    """dtype of parameters, activations and gradients"""
    autocast: Literal["none", "bfloat16"] = "none"
    """dtype of convolutions and matrix products in training; parameters, gradients and sums keep theirs; none: as
    --dtype"""
    portable: bool = False
    """compute with the same bits on every kind of CPU and for any number of threads, which is slower; what has no such
    form is refused, see docs/portable.md"""
