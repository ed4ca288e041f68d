"""Layers of other libraries that call torch's batch norm in a forward of their own: the call is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class BatchNormBy(TorchFunctionMode):
    """Context manager that replaces `torch.nn.functional.batch_norm` by another function and counts its calls.

    Args:
        batch_norm: the other function, with the same arguments.
    """

    def __init__(self, batch_norm: Callable[..., Tensor]):
        super().__init__()
        self.batch_norm = batch_norm
        self.calls = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function, or its replacement."""
        if func is F.batch_norm:
            self.calls += 1
            func = self.batch_norm
        return func(*args, **(kwargs or {}))


@contextmanager
def scratch_buffers(layer: nn.Module) -> Iterator[Callable[[], bool]]:
    """Context manager in which a layer's forward writes into copies of its buffers.

    Args:
        layer: a batch-norm layer.

    Yields:
        A function that tells whether a buffer other than `num_batches_tracked` has been written.
    """
    buffers = dict(layer._buffers)
    copies = {name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()}
    versions = {name: copy._version for name, copy in copies.items() if copy is not None}
    layer._buffers.update(copies)

    def written() -> bool:
        changed = {name for name, version in versions.items() if copies[name]._version != version}  # type: ignore[union-attr]
        return bool(changed - {"num_batches_tracked"})

    try:
        yield written
    finally:
        layer._buffers.update(buffers)
