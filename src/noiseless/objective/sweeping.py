"""The context of a sweep: what is changed in a module while its blocks are computed, and what it may not do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

from noiseless.objective.batchnorm import BlockNorm
from noiseless.objective.layers import centred_group_norms, dense_gradients
from noiseless.portable import arithmetic


@contextmanager
def sweeping(module: nn.Module, norm: BlockNorm, portable: bool) -> Iterator[None]:
    """Context manager around a sweep: batch norm works on norm blocks; a module that writes buffers is refused.

    Args:
        module: of an objective.
        norm: its batch norm.
        portable: whether operations have the same bits on every CPU; its group norms are accurate in any format.

    Yields:
        Nothing.

    Raises:
        ValueError: naming a buffer that the module's forward has written.
    """
    buffers = dict(module.named_buffers())
    before = {name: buffer._version for name, buffer in buffers.items()}
    centred = nullcontext() if portable else centred_group_norms(module)
    with arithmetic(portable), norm.installed(), dense_gradients(module), centred, torch.enable_grad():
        yield
    for name, buffer in module.named_buffers():
        if buffer is not buffers.get(name) or buffer._version != before[name]:
            raise ValueError(
                f"the module's forward writes its buffer {name!r}, so its loss depends on earlier forwards; only"
                " batch norm's statistics are supported. Freeze the layer that does it, or put it in eval()"
            )
