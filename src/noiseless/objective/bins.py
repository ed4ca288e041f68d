"""Where the bins of an exact sum lie, and how many elements of them are processed at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

WIDTH = 32
"""bits of a bin"""
LOWEST = -(1074 // WIDTH + 1)
"""bin index below every float64: where a sum starts"""
DEVICE_SLICE = 2**22
"""elements processed at once where memory, not a cache, is the limit: 32 MiB for each temporary in float64"""


def slice_of(device: torch.device) -> int:
    """Elements processed at once; changes no bit.

    Args:
        device: of the sum. On a CPU, a slice fits the cache and keeps all threads of torch busy; elsewhere, its
            temporaries are small beside the device's memory.

    Returns:
        Their number.
    """
    if device.type != "cpu":
        return DEVICE_SLICE
    threads = torch.get_num_threads()
    return 2**14 if threads == 1 else 2**16 * threads


def largest_of(term: Tensor) -> float:
    """The largest absolute value of a tensor, in one pass; NaN if it holds one, 0 if it is empty."""
    if not term.numel():
        return 0.0
    low, high = torch.aminmax(term)
    return max(-float(low), float(high))


def top_of(largest: float) -> int:
    """The lowest bin I with `largest <= u_(I+1) / 2`."""
    if largest == 0:
        return LOWEST
    mantissa, exponent = math.frexp(largest)  # largest = mantissa * 2**exponent, 0.5 <= mantissa < 1
    if mantissa == 0.5:
        exponent -= 1
    return max(LOWEST, -(-(exponent + 1) // WIDTH) - 1)  # 2**exponent is the least power of two not below largest


def factors(exponent: int) -> tuple[float, float]:
    """Two numbers whose product is 2**exponent; the second is 1 where 2**exponent is well within float64's range."""
    if abs(exponent) <= 900:
        return 2.0**exponent, 1.0
    return 2.0 ** (exponent // 2), 2.0 ** (exponent - exponent // 2)
