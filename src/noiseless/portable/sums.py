"""Sums of a fixed shape: a tree of additions that depends on the length alone.

torch's sums cut a tensor by threads and by the width of the processor's vectors. Here the second half of a dimension is
added to the first half until one element is left (where the length is odd, the middle element waits), first dimension
first. Each addition is one elementwise IEEE operation. The error of a sum of n terms is at most `log2(n)` roundings.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def total(x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """The sum over dimensions, of x's dtype.

    Args:
        x: float32 or float64.
        dims: dimensions; None or empty: all.
        keepdim: whether the dimensions are kept, with length 1.

    Returns:
        The sum; a new tensor.
    """
    chosen = sorted(d % x.ndim for d in dims) if dims and x.ndim else list(range(x.ndim))
    result, own = x, False
    for dim in chosen:
        result, own = _along(result, dim, own)
    if not own:
        result = result.clone()
    return result if keepdim else result.reshape([n for d, n in enumerate(x.shape) if d not in chosen])


def _along(x: Tensor, dim: int, own: bool) -> tuple[Tensor, bool]:
    """The sum over one dimension, which is kept; `own`: x may be overwritten, as the result may."""
    n = x.shape[dim]
    if n == 0:
        return x.new_zeros([1 if d == dim else size for d, size in enumerate(x.shape)]), True
    while n > 1:
        half = (n + 1) // 2
        second = x.narrow(dim, half, n - half)
        if own:
            x = x.narrow(dim, 0, half)
            x.narrow(dim, 0, n - half).add_(second)
        elif n % 2 == 0:
            x, own = x.narrow(dim, 0, half) + second, True
        else:
            first = x.narrow(dim, 0, half).clone()
            first.narrow(dim, 0, n - half).add_(second)
            x, own = first, True
        n = half
    return x, own


def count(x: Tensor, dims: Sequence[int] | None) -> int:
    """Number of elements that a sum over the dimensions adds."""
    number = 1
    for d in range(x.ndim) if not dims else {d % x.ndim for d in dims}:
        number *= x.shape[d]
    return number


def mean(x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """The mean over dimensions: the sum divided by the count."""
    return total(x, dims, keepdim) / count(x, dims)


def variance_and_mean(x: Tensor, dims: Sequence[int] | None, correction: float, keepdim: bool) -> tuple[Tensor, Tensor]:
    """`sum((x - m)^2) / (n - correction)`, with the rounding error of the mean m taken out, and the mean."""
    n = count(x, dims)
    first = mean(x, dims, True)
    centred = x - first
    rest = mean(centred, dims, True)  # the error of the first mean
    centred = centred - rest
    square = total(centred * centred, dims, True) / max(n - correction, 0)
    average = first + rest
    if keepdim:
        return square, average
    shape = total(first, dims, False).shape
    return square.reshape(shape), average.reshape(shape)
