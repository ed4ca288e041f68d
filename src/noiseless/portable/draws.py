"""Random numbers from the bits of torch's generator on CPUs (a Mersenne twister) by portable arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from noiseless.portable import functions


def _fractions(shape: torch.Size, generator: torch.Generator | None) -> Tensor:
    """Numbers within (0, 1), odd multiples of 2**-33: float64."""
    words = torch.empty(shape, dtype=torch.int64).random_(0, 2**32, generator=generator)
    return (words.double() + 0.5) * 2.0**-32


def uniform(x: Tensor, low: float = 0.0, high: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """`low + (high - low) u`, for `Tensor.uniform_`."""
    return (_fractions(x.shape, generator) * (high - low) + low).to(x.dtype)


def normal(x: Tensor, mean: float = 0.0, std: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Normal numbers by the transform of Box and Muller (1958), for `Tensor.normal_`."""
    radius = functions.sqrt(-2 * functions.log(_fractions(x.shape, generator)))
    angle = (2 * math.pi) * _fractions(x.shape, generator)
    return (radius * functions.cos(angle) * std + mean).to(x.dtype)


def bernoulli(x: Tensor, p: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """1 with probability p, else 0, for `Tensor.bernoulli_`."""
    return (_fractions(x.shape, generator) < p).to(x.dtype)


def new_uniform(
    size: Sequence[int], *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None, **place: Any
) -> Tensor:
    """Numbers within (0, 1), for `torch.rand`."""
    return uniform(torch.empty(size, dtype=dtype), generator=generator)


def new_normal(
    size: Sequence[int], *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None, **place: Any
) -> Tensor:
    """Normal numbers, for `torch.randn`."""
    return normal(torch.empty(size, dtype=dtype), generator=generator)
