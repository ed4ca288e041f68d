"""What exact gradients of FSDP2 and of DistributedDataParallel have in common: the sum, the ranks, what is refused."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.distributed as dist
from torch import Tensor

from noiseless.objective.exactsum import ExactSum

DTYPES = (torch.float32, torch.bfloat16, torch.float64)
"""dtypes of block gradients; FSDP2 divides those in float16 first, by a number that depends on the ranks"""


class ExactGradients(ABC):
    """The sum of a module's block gradients over all backward passes of all ranks, with the same bits in any order.

    A block is what one forward and backward pass computes on one rank (a micro-batch). Each backward pass adds its
    gradient `g_b`; `write` ends the step:

        p.grad = (sum_b g_b) / divide_by

    The sum is that of `ExactSum` over the vector of all parameters: it is within `n 2**-53 max|g|` of the mathematical
    one, for n blocks and the largest element of any block gradient. It is divided in float64, then rounded to the
    parameters' dtype. Until `write`, the `.grad` of the parameters is zero or None.

    `exact_gradients` makes one.
    """

    @abstractmethod
    def write(self, divide_by: float) -> None:
        """Puts the exact gradient into `.grad` of each parameter, and begins a new sum. All ranks call it together.

        A NaN or an infinity among the block gradients gives what their plain sum has in that element.

        Args:
            divide_by: what the sum is divided by, the same number on all ranks. The number of blocks, if each loss is
                the mean over its block and blocks are of one size; the number of examples or tokens in all blocks, if
                each loss is the sum over its block. It must not depend on the number of ranks.

        Raises:
            ValueError: if there was no backward pass since the last `write`, if `divide_by` is not a positive number,
                or if the ranks' numbers differ.
        """


class Ranks:
    """The ranks that share the sums.

    Args:
        group: their process group.
        device: device of the parameters.

    Raises:
        ValueError: if the group has no backend for the device.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device):
        backends = dist.get_backend_config(group)
        if device.type not in [part.partition(":")[0] for part in backends.split(",")]:
            raise ValueError(
                f"the parameters are on {device.type}, and the process group has backends for {backends} only: move the"
                f" model to such a device, or call init_process_group with a backend for {device.type}"
            )
        self.group, self.device, self.count = group, device, group.size()

    def maximum(self, tensors: list[Tensor]) -> None:
        """Replaces each element by its maximum over the ranks."""
        self._reduce(tensors, dist.ReduceOp.MAX)

    def total(self, tensors: list[Tensor]) -> None:
        """Replaces each element by its sum over the ranks."""
        self._reduce(tensors, dist.ReduceOp.SUM)

    def check(self, divide_by: float) -> None:
        """Refuses a number to divide by that is not positive, or not the same on all ranks.

        Raises:
            ValueError: if it is so.
        """
        given = torch.tensor([divide_by, -divide_by], dtype=torch.float64).nan_to_num(math.inf, math.inf, -math.inf)
        self.maximum([given])
        largest, smallest = float(given[0]), -float(given[1])
        if not (smallest > 0 and largest < math.inf):
            raise ValueError(
                f"divide_by is {divide_by:g}: give the number of blocks of the step, or of its examples or tokens"
            )
        if largest != smallest:
            raise ValueError(
                f"divide_by is {smallest:g} on one rank and {largest:g} on another: give all ranks the number of the"
                " whole step"
            )

    def _reduce(self, tensors: list[Tensor], operation: dist.ReduceOp.RedOpType) -> None:
        if self.count == 1:
            return
        for tensor in tensors:
            there = tensor.to(self.device)
            dist.all_reduce(there, operation, self.group)
            tensor.copy_(there)


def supported(dtype: torch.dtype) -> None:
    """Refuses block gradients whose sum would not be exact.

    Raises:
        ValueError: for another dtype than float32, bfloat16 and float64.
    """
    if dtype not in DTYPES:
        raise ValueError(
            f"the gradients are {str(dtype).removeprefix('torch.')}, and the exact sum adds float32, bfloat16 or"
            " float64: choose MixedPrecisionPolicy(reduce_dtype=torch.float32)"
        )


def add(total: ExactSum, terms: Tensor) -> None:
    """Adds terms `[K, n]` of weight 1."""
    total.add(terms, torch.ones(len(terms), dtype=torch.float64))
