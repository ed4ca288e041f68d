"""Matrix products whose bits do not depend on the order of their sums: one exact float64 product of rounded factors.

The error-free splitting of Ozaki, Ogita, Oishi and Rump (Numer. Algor. 59, 2012, doi 10.1007/s11075-011-9478-1). A row
of the first factor, and a column of the second one, is rounded to multiples of 2**-22 of its largest element's power of
two. Then all products, and sums of up to 2**9 of them, are whole multiples of one unit below 2**53 units: float64 holds
them exactly, so a BLAS may add them in any order, with fused multiply-adds or without, by any number of threads. Longer
sums are cut into parts at fixed places, which are added in their order.

**Error.** A float32 element has 24 bits. The largest element of a row loses up to 2**-23 of its power of two, as do all
others, so that small elements beside large ones lose more than in float32; in return nothing is lost in the sum. A
float64 element is cut into three slices of 22 bits, and six products are added: the error is near float64's.
"""

from __future__ import annotations

import torch
from torch import Tensor

LONGEST = 1024
"""terms of an exact sum; 22 + 22 bits leave room for 512, 22 + 21 bits for 1024"""
SLICES = 3
"""slices of a float64 element"""


def bits(length: int) -> tuple[int, int]:
    """Bits of the two factors' elements in an exact sum of that length, at most 1024."""
    return (22, 22) if length <= 512 else (22, 21)


def anchor(largest: Tensor, width: int) -> Tensor:
    """The number c for which `(x + c) - c` rounds x to `width` bits below the power of two above the largest |x|.

    Args:
        largest: largest absolute values, float32 or float64, not negative.
        width: bits.

    Returns:
        c, of the same shape and dtype; not finite where the largest value is not.
    """
    if largest.dtype == torch.float32:
        power = (largest.clamp(min=2.0**-100).view(torch.int32) & 0x7F800000).view(torch.float32)
        return power * (3.0 * 2.0 ** (23 - width))
    power = (largest.clamp(min=2.0**-800).view(torch.int64) & 0x7FF0000000000000).view(torch.float64)
    return power * (3.0 * 2.0 ** (52 - width))


def largest(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The largest absolute value over dimensions, which are kept.

    torch's kernel is fast where the last dimension is among them; else halves are compared until one element is left.

    Args:
        x: any tensor.
        dims: dimensions.

    Returns:
        The values, with length 1 in those dimensions.
    """
    if x.ndim - 1 in {d % x.ndim for d in dims}:
        return torch.maximum(x.amax(dims, keepdim=True), -x.amin(dims, keepdim=True))
    result = x.abs()
    for dim in dims:
        n = result.shape[dim]
        while n > 1:
            half = n // 2
            first = result.narrow(dim, 0, half)
            torch.maximum(first, result.narrow(dim, n - half, half), out=first)
            n -= half
            result = result.narrow(dim, 0, n)
    return result


def rounded(x: Tensor, dims: tuple[int, ...], width: int) -> Tensor:
    """Values rounded to `width` bits below the largest element over dimensions."""
    c = anchor(largest(x, dims), width)
    return (x + c).sub_(c)


def slices(x: Tensor, dim: int, width: int) -> list[Tensor]:
    """Slices of x in float64, the largest first, whose products are exact: one of float32, three of float64."""
    if x.dtype == torch.float32:
        return [rounded(x, (dim,), width).double()]
    parts = []
    for _ in range(SLICES):
        parts.append(rounded(x, (dim,), width))
        x = x - parts[-1]  # exact
    return parts


def product(a: Tensor, b: Tensor) -> Tensor:
    """The matrix products of a `[B, M, K]` and b `[B, K, N]`, both float32 or both float64: `[B, M, N]`."""
    return wide_product(a, b).to(a.dtype)


def wide_product(a: Tensor, b: Tensor) -> Tensor:
    """`product` before the last rounding, in float64."""
    length = a.shape[2]
    if length == 0 or not a.numel() or not b.numel():
        return torch.zeros(a.shape[0], a.shape[1], b.shape[2], dtype=torch.float64)
    result = None
    for start in range(0, length, LONGEST):
        size = min(LONGEST, length - start)
        of_a, of_b = bits(size)
        first, second = slices(a.narrow(2, start, size), 2, of_a), slices(b.narrow(1, start, size), 1, of_b)
        pairs = [(i, j) for i in range(len(first)) for j in range(len(second)) if i + j < SLICES]
        for i, j in sorted(pairs, key=lambda pair: (-sum(pair), pair)):  # small ones first
            part = torch.bmm(first[i], second[j])
            result = part if result is None else result.add_(part)
    assert result is not None
    return result
