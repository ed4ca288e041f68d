"""Softmax, pools and activations by portable sums and functions, with the arguments of ATen's operations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as every

import torch
import torch.nn.functional as F
from torch import Tensor

from noiseless.portable import functions, sums
from noiseless.portable.convolutions import pair


def softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """`exp(x - max) / sum exp(x - max)`, in float64, rounded once to x's dtype."""
    e = functions.exp(_shifted(x, dim))
    return (e / sums.total(e, [dim], True)).to(x.dtype)


def softmax_backward(gradient: Tensor, output: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """`y (g - sum g y)`."""
    weighted = gradient * output
    return weighted - output * sums.total(weighted, [dim], True)


def log_softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """`x - max - log sum exp(x - max)`, in float64, rounded once to x's dtype."""
    shifted = _shifted(x, dim)
    return (shifted - functions.log(sums.total(functions.exp(shifted), [dim], True))).to(x.dtype)


def log_softmax_backward(gradient: Tensor, output: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """`g - exp(y) sum g`."""
    return gradient - functions.exp(output) * sums.total(gradient, [dim], True)


def logsumexp(x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:
    """`max + log sum exp(x - max)`, in float64, rounded once."""
    dims = [dims] if isinstance(dims, int) else list(dims)
    largest = x.double().amax(dims, keepdim=True)
    shift = torch.where(largest.isfinite(), largest, 0.0)
    result = functions.log(sums.total(functions.exp(x.double() - shift), dims, True)) + shift
    return result.to(x.dtype) if keepdim else result.to(x.dtype).reshape(x.amax(dims).shape)


def logaddexp(x: Tensor, y: Tensor) -> Tensor:
    """`log(exp x + exp y)`."""
    high, low = torch.maximum(x, y).double(), torch.minimum(x, y).double()
    return (high + functions.log1p(functions.exp(low - high))).to(x.dtype)


def _shifted(x: Tensor, dim: int) -> Tensor:
    wide = x.double()
    return wide - wide.amax(dim, keepdim=True) if x.numel() else wide


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """`x Phi(x)` in float64, rounded once; or its approximation by tanh."""
    if approximate == "none":
        return functions.gelu(x)
    wide = x.double()
    return (0.5 * wide * (1 + functions.tanh(_inner(wide)))).to(x.dtype)


def gelu_backward(gradient: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    """`g (Phi(x) + x phi(x))`, or the derivative of the approximation."""
    if approximate == "none":
        return functions.gelu_backward(gradient, x)
    wide = x.double()
    t = functions.tanh(_inner(wide))
    inner_slope = 0.7978845608028654 * (1 + 3 * 0.044715 * (wide * wide))
    slope = 0.5 * (1 + t) + 0.5 * wide * (1 - t * t) * inner_slope
    return (gradient.double() * slope).to(x.dtype)


def _inner(wide: Tensor) -> Tensor:
    return 0.7978845608028654 * (wide + 0.044715 * (wide * wide * wide))


def silu(x: Tensor) -> Tensor:
    """`x sigmoid(x)`."""
    return x * functions.sigmoid(x)


def silu_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """`g s (1 + x (1 - s))` with `s = sigmoid(x)`."""
    wide = x.double()
    s = functions.sigmoid(wide)
    return (gradient.double() * (s * (1 + wide * (1 - s)))).to(x.dtype)


def average_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0,),
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """`torch.nn.functional.avg_pool2d`: windows are added position by position."""
    windows, counts = _windows(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    total = None
    for rows, columns, padded in windows:
        part = padded[..., rows, columns]
        total = part.clone() if total is None else total.add_(part)
    assert total is not None
    return total / counts


def average_pool_backward(
    gradient: Tensor, x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    ceil_mode: bool, count_include_pad: bool, divisor_override: int | None,
) -> Tensor:  # fmt: skip
    """The gradient of `average_pool`."""
    windows, counts = _windows(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)
    share, total = gradient / counts, torch.zeros_like(windows[0][2])
    for rows, columns, _ in windows:
        total[..., rows, columns] += share
    top, left = pair(padding)
    return total[..., top : top + x.shape[-2], left : left + x.shape[-1]].clone()


def _windows(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil_mode: bool, include: bool,
    divisor: int | None,
) -> tuple[list[tuple[slice, slice, Tensor]], Tensor]:  # fmt: skip
    """For each position in a window, the rows and columns of the padded images; and what the sums are divided by."""
    kernel, stride, padding = pair(kernel), pair(stride or kernel), pair(padding)
    sizes, ends = [], []
    for k in (0, 1):
        span = x.shape[k - 2] + 2 * padding[k] - kernel[k]
        out = (-(-span // stride[k]) if ceil_mode else span // stride[k]) + 1
        if ceil_mode and (out - 1) * stride[k] >= x.shape[k - 2] + padding[k]:
            out -= 1
        sizes.append(out)
        ends.append(max(0, (out - 1) * stride[k] + kernel[k] - x.shape[k - 2] - padding[k]))
    margins = (padding[1], max(ends[1], padding[1]), padding[0], max(ends[0], padding[0]))
    padded = F.pad(x, margins)

    def along(offset: int, k: int) -> slice:
        return slice(offset, offset + (sizes[k] - 1) * stride[k] + 1, stride[k])

    windows = [(along(i, 0), along(j, 1), padded) for i, j in every(range(kernel[0]), range(kernel[1]))]
    if divisor is not None:
        return windows, x.new_full((), float(divisor))
    counted = x.new_ones(x.shape[-2:])
    if include:
        counted = F.pad(counted, (padding[1], padding[1], padding[0], padding[0]), value=1.0)
        counted = F.pad(counted, (0, margins[1] - padding[1], 0, margins[3] - padding[0]))
    else:
        counted = F.pad(counted, margins)
    counts = torch.stack([counted[rows, columns] for rows, columns, _ in windows]).double()
    return windows, sums.total(counts, [0]).to(x.dtype)  # whole numbers
