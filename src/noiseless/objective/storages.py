"""Parts of one vector as tensors with a storage each: the layout of a module's parameters and gradients.

They share the vector's memory, so writing into one moves the other, and nothing is copied. Code that looks at storages
(`torch.save`, `pickle`, safetensors, torch.export) sees a module like any other: it stores each part once, and no more
than the part.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNED = 16
"""bytes: torch's compiler for GPUs assumes that the start of a storage is a multiple of this"""


def parts_of(vector: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Tensors of given shapes that share the memory of a vector; each has its own storage.

    Args:
        vector: `[P]`, contiguous, the only tensor of its storage.
        shapes: their numbers of elements sum to P.

    Returns:
        The parts in their order. On devices other than the CPU, a storage may begin up to 15 bytes before its part. On
        the meta device, which has no memory, the parts are views.
    """
    sizes = [shape.numel() for shape in shapes]
    if vector.is_meta:
        return [part.view(shape) for part, shape in zip(vector.split(sizes), shapes, strict=True)]
    storage, width = vector.untyped_storage(), vector.element_size()
    step = width if vector.device.type == "cpu" else max(ALIGNED, width)
    parts, offset = [], 0
    for size, shape in zip(sizes, shapes, strict=True):
        end = offset + size * width
        first = offset - offset % step
        own = torch.empty(0, dtype=vector.dtype, device=vector.device).set_(storage[first:end])
        parts.append(own[(offset - first) // width :].view(shape))
        offset = end
    return parts


def are_parts(tensors: Sequence[Tensor], vector: Tensor) -> bool:
    """Whether tensors still are the parts of a vector: `module.to` and `module.share_memory` move their memory.

    Args:
        tensors: whose numbers of elements sum to P.
        vector: `[P]`.

    Returns:
        True if they have its memory, one after the other, and its dtype.
    """
    address = vector.data_ptr()
    for tensor in tensors:
        size = tensor.numel()
        if (size and tensor.data_ptr() != address) or tensor.dtype != vector.dtype:
            return False
        address += size * vector.element_size()
    return True
