"""Workers on GPUs: all on one kind of device, and none far ahead of its own.

A worker sends a GPU its work without waiting, so it could claim chunks long before they are computed, which a faster
GPU would have computed sooner. So it stays at most `AHEAD` chunks ahead: the GPU always has work, and claims follow its
speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

AHEAD = 2
"""most chunks that a worker of several has sent to its device and that are not computed"""
KINDS = ("cpu", "cuda")
"""kinds of devices, which are never mixed in one sum; others count as one kind"""


class Event(Protocol):
    """A place in a device's queue, as `torch.cuda.Event`."""

    def record(self) -> None:
        """Puts it at the end of the queue."""

    def synchronize(self) -> None:
        """Waits until the device has come to it."""


class Ahead:
    """How far a worker is ahead of its device.

    Args:
        device: of its sums. A CPU computes what it is told before it returns, so nothing is waited for.
        event: makes an event of the device's queue.
    """

    def __init__(self, device: torch.device, event: Callable[[], Event] = torch.cuda.Event):
        self._waits, self._event = device.type == "cuda", event
        self._sent: deque[Event] = deque()

    def sent(self) -> None:
        """Called when all work of a chunk is sent: waits for the chunk `AHEAD` before it."""
        if self._waits:
            event = self._event()
            event.record()
            self._sent.append(event)
            if len(self._sent) > AHEAD:
                self._sent.popleft().synchronize()


def agreed(done: Tensor, device: torch.device, rank: int, maximum: Callable[[list[Tensor]], None]) -> Tensor:
    """The chunks that any worker has done, of workers on one kind of device.

    Args:
        done: 1 for a chunk that this worker has done, uint8 `[chunks]` on the CPU.
        device: of this worker's sums.
        rank: of this worker.
        maximum: replaces each element by its maximum over the workers.

    Returns:
        uint8 `[chunks]`, the same at each worker.

    Raises:
        ValueError: at each worker, if their devices are of different kinds.
    """
    kind = KINDS.index(device.type) if device.type in KINDS else len(KINDS)
    known = torch.cat((done, torch.tensor([kind, len(KINDS) - kind], dtype=torch.uint8)))
    maximum([known])
    *_, largest, rest = known.tolist()
    if largest != len(KINDS) - rest:
        raise ValueError(
            f"worker {rank} computes on {device.type} and another one on a device of another kind, so the bits of a sum"
            " would depend on who computes what: move all models to GPUs, or all to CPUs"
        )
    return known[: len(done)]
