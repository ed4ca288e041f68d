"""Operations that wait for a device: they read its numbers, or copy between it and the CPU, until its queue is empty.

On a GPU each would let it idle. Here they are counted on a CPU, or on torch's meta device, whose tensors have no
values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from noiseless.objective.partial import Partial
from noiseless.objective.workers import Alone

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense, aten.item, aten.nonzero, aten.is_nonzero, aten.equal, aten.unique_dim, aten._unique,
    aten._unique2, aten.unique_consecutive, aten.masked_select, aten.bincount,
}  # fmt: skip
"""operations whose result, or its shape, Python needs to know"""


class Waits(TorchDispatchMode):
    """Lists the operations that would wait for a device.

    Attributes:
        seen: their names, in order.

    Args:
        device: on which tensors are; "cpu": CPU tensors stand for those of a device.
    """

    def __init__(self, device: str):
        super().__init__()
        self.device, self.seen = device, []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in args if isinstance(t, Tensor)]
        there = any(t.device.type == self.device for t in tensors)
        if there and operation.overloadpacket in READS:
            self.seen.append(str(operation))
        if there and operation.overloadpacket in (aten.index, aten.index_put_, aten.index_put):
            self.seen += [f"{operation} by a mask" for t in args[1] if t is not None and t.dtype == torch.bool]
        result = operation(*args, **kwargs)
        if operation.overloadpacket in (aten._to_copy, aten.copy_) and self.device != "cpu":
            places = {t.device.type for t in [*tensors, result]}
            waiting = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if len(places) > 1 and waiting:
                self.seen.append(f"{operation} between {' and '.join(sorted(places))}")
        return result


class _Made(TorchFunctionMode):
    """Lists tensors that are made of Python's numbers on a device, which are copied there by a waiting copy."""

    def __init__(self, waits: Waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor) and result.device.type == self.waits.device != "cpu":
            self.waits.seen.append("torch.tensor on a device")
        return result


class Stopped(Exception):
    """All chunks of a sweep were computed; nothing of it was read."""


class Counting(Alone):
    """One process that counts what waits between the first and the last chunk of each sweep.

    Attributes:
        waits: see `Waits`.
        chunks: number of chunks that were counted.

    Args:
        device: see `Waits`.
        ends: whether a sweep ends with its last chunk, by `Stopped`, as there is no value to read.
    """

    def __init__(self, device: str, ends: bool = False):
        super().__init__()
        self.waits, self.chunks, self._ends = Waits(device), 0, ends

    def share(self, partial: Partial) -> Iterator[int]:
        first, *others = super().share(partial)
        yield first
        with self.waits, _Made(self.waits):
            for number in others:
                self.chunks += 1
                yield number

    def combine(self, partial: Partial) -> None:
        if self._ends:
            raise Stopped
        super().combine(partial)
