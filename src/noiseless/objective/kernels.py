"""The two loops of an exact sum over its elements on a device: the largest term, and the bins' update.

With Triton, on a GPU of NVIDIA or AMD, each is one kernel, and the update reads and writes a bin once for all terms of
a chunk. Elsewhere they are operations of torch with the same arithmetic. Both take the place of the highest bin as a
number on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from noiseless.objective.bins import WIDTH, slice_of

Largest = Callable[[Tensor, Tensor], Tensor]
"""(terms `[K, length]`, weights float64 `[K, 1]` or `[K, length]`) -> the largest `|weight * term|` that is finite,
float64 `[]`"""
Deposit = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
"""(bins float64 `[3, length]`, terms, weights, the highest bin's place before, and after) adds the terms to the bins"""


def chosen(device: torch.device) -> tuple[Largest, Deposit]:
    """The two loops for a device: Triton's on a GPU where Triton is installed, else torch's."""
    if device.type == "cuda" and find_spec("triton") is not None:
        from noiseless.objective import fused  # imported here: Triton takes a second, and is not everywhere

        return fused.largest, fused.deposit
    return largest, deposit


def largest(terms: Tensor, weights: Tensor) -> Tensor:
    """See `Largest`."""
    parts = [_finite(_weighted(terms, weights, part)).abs_().amax() for part in _slices(terms)]
    return torch.stack(parts).amax()


def deposit(bins: Tensor, terms: Tensor, weights: Tensor, before: Tensor, top: Tensor) -> None:
    """See `Deposit`."""
    places = torch.arange(3, device=bins.device)
    source = places - (top - before).clamp(max=3)
    source = torch.where(source < 0, 3, source)  # a row of zeros
    exponent = -WIDTH * top
    half = torch.div(exponent, 2, rounding_mode="floor")
    scale, rest = _power(half), _power(exponent - half)  # 2**exponent itself may be no float64
    for part in _slices(terms):
        old = bins[:, part]
        moved = torch.cat((old, torch.zeros_like(old[:1]))).index_select(0, source)
        moved[0] += old[0] - _finite(old[0].clone())
        rests = _weighted(terms, weights, part).mul_(scale).mul_(rest)
        for k in range(3):
            multiples = rests.round()
            moved[k] += multiples.sum(0)  # whole numbers: exact in any order
            rests.sub_(multiples).mul_(2.0**WIDTH)
        bins[:, part] = moved


def _slices(terms: Tensor) -> list[slice]:
    size = max(1, slice_of(terms.device) // len(terms))
    return [slice(start, start + size) for start in range(0, terms.shape[1], size)]


def _weighted(terms: Tensor, weights: Tensor, part: slice) -> Tensor:
    """`weights * terms` of a slice, in float64."""
    return terms[:, part].double() * (weights if weights.shape[1] == 1 else weights[:, part])


def _finite(x: Tensor) -> Tensor:
    """x, in which numbers that are not finite have become 0."""
    return x.nan_to_num_(0.0, 0.0, 0.0)


def _power(exponent: Tensor) -> Tensor:
    """`2**exponent` for -1022 <= exponent <= 1023, int64 `[]`, by its bits: exact on any device. float64 `[]`."""
    return ((exponent + 1023) << 52).view(torch.float64)
