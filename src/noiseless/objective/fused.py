"""The two loops of an exact sum as kernels of Triton: an element's bins are read and written once for all terms.

The arithmetic is that of `kernels.largest` and `kernels.deposit`, with the same bits. Products with powers of two, and
sums of whole numbers below 2**53, are exact, so a compiler that fuses a product with a sum changes nothing. A number is
rounded to a whole one, half to even, by adding and subtracting 1.5 * 2**52; the numbers here are below 2**32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
"""elements of a program"""


@triton.jit
def _largest(terms, weights, parts, length, rows, weight_row, weight_column, block: tl.constexpr):
    element = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = element < length
    at, weight_at = element, element * weight_column  # int64: rows * length may be above 2**31
    most = tl.zeros((block,), tl.float64)
    for _ in range(rows):
        weight = tl.load(weights + weight_at, mask=inside, other=0.0)
        size = tl.abs(tl.load(terms + at, mask=inside, other=0.0).to(tl.float64) * weight)
        most = tl.maximum(most, tl.where(size < float("inf"), size, 0.0))  # NaN is below nothing
        at += length
        weight_at += weight_row
    tl.store(parts + tl.program_id(0), tl.max(most, axis=0))


@triton.jit
def _deposit(bins, terms, weights, before, top, length, rows, weight_row, weight_column, block: tl.constexpr):
    element = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = element < length
    place = tl.load(top)
    shift = place - tl.load(before)
    exponent = -32 * place
    half = exponent >> 1
    scale = ((half + 1023) << 52).to(tl.float64, bitcast=True)
    rest = ((exponent - half + 1023) << 52).to(tl.float64, bitcast=True)
    old = tl.load(bins + element, mask=inside, other=0.0)
    high = tl.load(bins - shift * length + element, mask=inside & (shift <= 0), other=0.0)
    middle = tl.load(bins + (1 - shift) * length + element, mask=inside & (shift <= 1), other=0.0)
    low = tl.load(bins + (2 - shift) * length + element, mask=inside & (shift <= 2), other=0.0)
    high += tl.where(tl.abs(old) < float("inf"), 0.0, old)
    at, weight_at = element, element * weight_column
    for _ in range(rows):
        weight = tl.load(weights + weight_at, mask=inside, other=0.0)
        x = tl.load(terms + at, mask=inside, other=0.0).to(tl.float64) * weight * scale * rest
        whole = (x + 6755399441055744.0) - 6755399441055744.0
        high += whole
        x = (x - whole) * 4294967296.0
        whole = (x + 6755399441055744.0) - 6755399441055744.0
        middle += whole
        x = (x - whole) * 4294967296.0
        low += (x + 6755399441055744.0) - 6755399441055744.0
        at += length
        weight_at += weight_row
    tl.store(bins + element, high, mask=inside)
    tl.store(bins + element + length, middle, mask=inside)
    tl.store(bins + element + length + length, low, mask=inside)


def largest(terms: Tensor, weights: Tensor) -> Tensor:
    """See `kernels.Largest`."""
    grid = triton.cdiv(terms.shape[1], BLOCK)
    parts = torch.empty(grid, dtype=torch.float64, device=terms.device)
    _largest[(grid,)](*_read(terms, weights, parts), block=BLOCK)
    return parts.amax()


def deposit(bins: Tensor, terms: Tensor, weights: Tensor, before: Tensor, top: Tensor) -> None:
    """See `kernels.Deposit`; `bins` is contiguous."""
    grid = triton.cdiv(terms.shape[1], BLOCK)
    _deposit[(grid,)](bins, *_read(terms, weights, before, top), block=BLOCK)


def _read(terms: Tensor, weights: Tensor, *others: Tensor) -> tuple[Tensor | int, ...]:
    """Arguments of a kernel: the terms in one piece, the weights with their strides."""
    rows, length = terms.shape
    return terms.contiguous(), weights, *others, length, rows, *weights.expand(rows, length).stride()
