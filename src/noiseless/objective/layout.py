"""Memory format of images: channels-last, which convolutions on CPUs prefer, unless it would cost digits.

On a GPU it is what the convolutions of bfloat16 are made for; those of float32 keep contiguous images.

oneDNN's channels-last convolution adds all terms of an output in float32, one after the other: kernel size times input
channels. Its rounding error grows with the square root of that number, while that of its other kernel, which adds
partial sums, does not. So modules whose convolutions have long sums get contiguous images in float32; such modules are
no slower that way. A module that cannot take another format keeps the one that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from noiseless.examples.trees import Inputs, mapped

Result = TypeVar("Result")
_contiguous: WeakSet[nn.Module] = WeakSet()
"""modules whose images are not brought into channels-last format, because their forward uses `view` or strides"""
LONG_SUM = 576
"""terms of a sum, 64 channels under 3 x 3, from which an output of the channels-last kernel has twice the error of the
other one (4.2e-7 and 2.2e-7 of it; with 512 channels 1.1e-6 and 2.2e-7)"""


def preferred(module: nn.Module, inputs: Inputs, autocast: torch.dtype | None) -> Inputs:
    """Inputs in the memory format in which a module is to get them.

    Args:
        module: the module.
        inputs: its inputs; images are floating-point `[n, C, H, W]`.
        autocast: dtype of its convolutions; None: that of the images.

    Returns:
        The inputs. Images on a CPU are in channels-last format, or contiguous if they are float32 and the module has
        long sums; on a GPU, in channels-last format under autocast. If the module has refused another format, they have
        the one that they had.
    """
    if module in _contiguous:
        return inputs
    split = splits_sums(module, autocast)

    def formatted(x: Tensor) -> Tensor:
        on_gpu = x.device.type == "cuda" and autocast is not None
        if x.ndim != 4 or not x.is_floating_point() or not (on_gpu or x.device.type == "cpu"):
            return x
        single = split and x.dtype == torch.float32
        return x.contiguous(memory_format=torch.contiguous_format if single else torch.channels_last)

    return mapped(formatted, inputs)


def splits_sums(module: nn.Module, autocast: torch.dtype | None) -> bool:
    """Whether a module's float32 images are contiguous, as most of its convolutions have long sums.

    Args:
        module: the module. Of its convolutions over several pixels, at least three quarters sum `LONG_SUM` terms or
            more; those of one pixel have shorter sums, and gain more from channels-last format. A module whose
            attribute `prefers_channels_last` is true keeps that format.
        autocast: dtype of its convolutions; None: that of the images.

    Returns:
        False under autocast, whose rounding is larger.
    """
    if autocast is not None or getattr(module, "prefers_channels_last", False):
        return False
    kernels = [layer.weight.shape[1:] for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    lengths = [prod(shape) for shape in kernels if prod(shape[1:]) > 1]
    return sum(n >= LONG_SUM for n in lengths) >= 0.75 * max(1, len(lengths))


@contextmanager
def contiguous(module: nn.Module) -> Iterator[None]:
    """A context in which a module gets its inputs in the format that they have.

    Args:
        module: the module.

    Yields:
        Nothing.
    """
    before = module in _contiguous
    _contiguous.add(module)
    try:
        yield
    finally:
        if not before:
            _contiguous.discard(module)


def keep_contiguous(module: nn.Module) -> None:
    """Remembers that a module is to get its inputs in the format that they have."""
    _contiguous.add(module)


def call(
    module: nn.Module, inputs: Inputs, function: Callable[[Inputs], Result], autocast: torch.dtype | None
) -> Result:
    """Calls a function with a module's inputs in the preferred format; if the module refuses it, once more as they are.

    Args:
        module: the module, which is remembered if it refuses the format.
        inputs: its inputs.
        function: (inputs) -> result; runs the module's forward.
        autocast: dtype of its convolutions; None: that of the images.

    Returns:
        The function's result.

    Raises:
        RuntimeError: what the function raises for another reason.
    """
    try:
        return function(preferred(module, inputs, autocast))
    except RuntimeError as error:
        if module in _contiguous or "view size is not compatible" not in str(error):
            raise
    _contiguous.add(module)
    return function(inputs)
