"""Memory format of images: channels-last, which convolutions on CPUs prefer, unless a module cannot take it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from noiseless.examples.trees import Inputs, mapped

Result = TypeVar("Result")
_contiguous: WeakSet[nn.Module] = WeakSet()
"""modules whose images are not brought into channels-last format, because their forward uses `view` or strides"""


def preferred(module: nn.Module, inputs: Inputs) -> Inputs:
    """Inputs in the memory format in which a module is to get them.

    Args:
        module: the module.
        inputs: its inputs; images are floating-point `[n, C, H, W]`.

    Returns:
        The inputs, images on a CPU in channels-last format unless the module has refused it.
    """
    return inputs if module in _contiguous else mapped(_channels_last, inputs)


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


def call(module: nn.Module, inputs: Inputs, function: Callable[[Inputs], Result]) -> Result:
    """Calls a function with a module's inputs in the preferred format; if the module refuses it, once more as they are.

    Args:
        module: the module, which is remembered if it refuses the format.
        inputs: its inputs.
        function: (inputs) -> result; runs the module's forward.

    Returns:
        The function's result.

    Raises:
        RuntimeError: what the function raises for another reason.
    """
    try:
        return function(preferred(module, inputs))
    except RuntimeError as error:
        if module in _contiguous or "view size is not compatible" not in str(error):
            raise
    _contiguous.add(module)
    return function(inputs)


def _channels_last(x: Tensor) -> Tensor:
    images = x.ndim == 4 and x.is_floating_point() and x.device.type == "cpu"
    return x.contiguous(memory_format=torch.channels_last) if images else x
