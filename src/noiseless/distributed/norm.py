"""The norm of a gradient, the same bits however the parameters are sharded, in the names of torch.nn.utils.

Squares of float32 numbers are exact in float64. They are cut at multiples of 2**(32 i), as in the exact sum, but into
as many bins as they have bits, so nothing is lost. Bins hold whole numbers, and ranks add theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from noiseless.objective.bins import LOWEST, WIDTH, factors, largest_of, top_of

BINS = 33 - LOWEST
"""bins from `LOWEST` to the one of the largest float64, which is below 2**1024"""
SLICE = 2**16
"""elements at once; the sum of as many parts of a bin is below 2**48, exact in float64 in any order"""


def get_total_norm(tensors: Tensor | Iterable[Tensor]) -> Tensor:
    """The L2 norm of all elements of tensors, `sqrt(sum_i x_i**2)`, as `torch.nn.utils.get_total_norm`.

    The sum of squares is exact, rounded once to float64, for tensors of float32 or less; in float64 each square is
    rounded first. So it depends neither on the order of the tensors nor on how they are sharded. NaN, if an element
    is; else infinite, if an element (or its square in float64) is.

    Args:
        tensors: gradients; sharded ones are `DTensor`s, with shards or replicas on each dimension of their mesh. All
            ranks of a mesh call this together.

    Returns:
        The norm, a float64 number on the CPU.

    Raises:
        ValueError: for a `DTensor` whose ranks hold partial sums.
    """
    together: dict[tuple[dist.ProcessGroup, ...], list[Tensor]] = {}
    for tensor in [tensors] if isinstance(tensors, Tensor) else tensors:
        local, groups = _local(tensor)
        together.setdefault(groups, []).append(local)
    counts = [0] * BINS
    special = 0.0
    for groups, locals_ in together.items():
        shard, shard_special = _squares(locals_)
        if groups:
            shard, shard_special = _over(groups, shard, shard_special, locals_[0].device)
        counts = [a + b for a, b in zip(counts, shard, strict=True)]
        special += shard_special
    return torch.tensor(_root(counts) if special == 0 else special, dtype=torch.float64)


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> Tensor:
    """Scales gradients to a norm of at most `max_norm`, as `torch.nn.utils.clip_grad_norm_`.

        g <- g min(1, max_norm / (||g|| + 1e-6))

    The factor is computed in float64, rounded to the gradients' dtype, and has the same bits on all ranks.

    Args:
        parameters: parameters; those without a gradient are left out.
        max_norm: largest norm.

    Returns:
        The norm before, as of `get_total_norm`.

    Raises:
        ValueError: see `get_total_norm`; for a negative `max_norm` or NaN.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm is {max_norm:g}: give a number of 0 or more")
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    gradients = [p.grad for p in given if p.grad is not None]
    norm = get_total_norm(gradients)
    factor = max_norm / (float(norm) + 1e-6)
    if not factor > 1:  # also NaN
        for gradient in gradients:
            _local(gradient)[0].mul_(factor)
    return norm


def _local(tensor: Tensor) -> tuple[Tensor, tuple[dist.ProcessGroup, ...]]:
    """This rank's part of a tensor, and the groups of ranks that have the other parts."""
    if not isinstance(tensor, DTensor):
        return tensor, ()
    if any(placement.is_partial() for placement in tensor.placements):
        raise ValueError(
            f"a gradient has the placements {tuple(tensor.placements)}, so its ranks hold partial sums: redistribute it"
            " to shards or replicas first"
        )
    mesh = tensor.device_mesh
    groups = (mesh.get_group(k) for k, placement in enumerate(tensor.placements) if placement.is_shard())
    return tensor.to_local(), tuple(groups)


def _squares(tensors: list[Tensor]) -> tuple[list[int], float]:
    """Whole numbers k_i with `sum x**2 = sum_i k_i 2**(32 (i + LOWEST))`; and the sum of NaN and infinite squares."""
    counts, special = [0] * BINS, 0.0
    for tensor in tensors:
        flat = tensor.detach().reshape(-1)
        for start in range(0, len(flat), SLICE):
            part = flat[start : start + SLICE].double()
            part.mul_(part)
            largest = largest_of(part)
            if not math.isfinite(largest):
                special += largest
                continue
            top = top_of(largest)
            for factor in factors(-WIDTH * top):
                if factor != 1:
                    part.mul_(factor)
            while largest:  # until no bits are left
                multiple = part.round()
                counts[top - LOWEST] += int(multiple.sum())
                part.sub_(multiple).mul_(2.0**WIDTH)
                top, largest = top - 1, largest_of(part)
    return counts, special


def _over(
    groups: tuple[dist.ProcessGroup, ...], counts: list[int], special: float, device: torch.device
) -> tuple[list[int], float]:
    """The sums over ranks. Numbers are sent in two halves of 32 bits, so that int64 does not overflow."""
    low = 2**32 - 1
    kinds = [int(math.isnan(special)), int(special == math.inf)]
    sent = torch.tensor([[k >> 32 for k in counts] + kinds, [k & low for k in counts] + kinds], device=device)
    for group in groups:
        dist.all_reduce(sent, dist.ReduceOp.SUM, group)
    (*high, nan, infinite), (*rest, _, _) = sent.tolist()
    return [(a << 32) + b for a, b in zip(high, rest, strict=True)], math.nan if nan else math.inf if infinite else 0.0


def _root(counts: list[int]) -> float:
    total = sum(k << (WIDTH * i) for i, k in enumerate(counts))
    try:
        return math.sqrt(total / 2 ** (-WIDTH * LOWEST))  # division of whole numbers rounds correctly
    except OverflowError:
        return math.inf
