"""Batch norm of norm blocks with sums that are as accurate as float32 allows: the arithmetic of `BlockNorm`.

torch's kernel for channels-last tensors on CPUs adds a channel's values one by one, so the error of its statistics
grows with their number. Here a sum runs over each example's positions (pixels), then over the examples: neither loop is
long, in any layout, and in compiled code as well. A first mean m is computed and subtracted; then the mean of `x - m`,
which is the rounding error of m, and the mean square of `x - m`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class NormBlocks(torch.autograd.Function):
    """`y = weight (x - mean_g) / sqrt(variance_g + eps) + bias`, with mean and variance of each of G norm blocks.

    Differentiable once: `plain.batch_norm` is differentiable to any order.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalises norm blocks of equal size.

        Args:
            x: `[G, n, C, ...]`.
            weight: `[C]`; None: 1.
            bias: `[C]`; None: 0.
            eps: added to the variance.

        Returns:
            y, of x's shape and dtype, and three tensors `[G, C]` without gradient: the first mean m; the mean of
            `x - m`, which is the error of m; the biased variance.
        """
        first = _mean(x)
        centred = x - first
        rest = _mean(centred)
        variance = (_mean(centred.square()) - rest.square()).clamp(min=0)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * _channels(weight, x)
        shift = -rest * scale if bias is None else torch.addcmul(_channels(bias, x), rest, scale, value=-1)
        y = torch.addcmul(shift, centred, scale)
        first, rest, variance = (t.reshape(len(x), -1) for t in (first, rest, variance))
        return y.to(x.dtype), first, rest, variance

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Saves what the backward needs: x and its statistics, but not `x - m`, which is computed again."""
        x, weight, bias, ctx.eps = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x, weight, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias."""
        (dy, *_), (x, weight, *statistics) = gradients, ctx.saved_tensors
        first, rest, variance = (t.reshape(len(x), 1, -1, *[1] * (x.ndim - 3)) for t in statistics)
        rate = (variance + ctx.eps).rsqrt()
        centred, dy = x - first, dy.to(first.dtype)
        count = x[0, :, 0].numel()
        dy_sum = _sum(dy)
        product_sum = (_sum(dy * centred) - rest * dy_sum) * rate  # sum of dy times the normalised x
        scale = rate if weight is None else rate * _channels(weight, x)
        slope = rate * product_sum / count
        dx = dy + (slope * rest - dy_sum / count)  # terms that cancel are subtracted before they are scaled
        dx = (torch.addcmul(dx, centred, slope, value=-1) * scale).to(x.dtype)
        d_weight = None if weight is None else product_sum.reshape(len(x), -1).sum(0).to(weight.dtype)
        d_bias = None if ctx.bias_dtype is None else dy_sum.reshape(len(x), -1).sum(0).to(ctx.bias_dtype)
        return dx, d_weight, d_bias, None


def _sum(x: Tensor) -> Tensor:
    """The sum of x `[G, n, C, ...]` over examples and positions, in at least float32: `[G, 1, C, 1, ...]`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.ndim > 3:
        x = x.sum(list(range(3, x.ndim)), keepdim=True, dtype=dtype)
    return x.sum(1, keepdim=True, dtype=dtype)


def _mean(x: Tensor) -> Tensor:
    """The mean of x `[G, n, C, ...]` over examples and positions, in at least float32: `[G, 1, C, 1, ...]`."""
    return _sum(x) / x[0, :, 0].numel()


def _channels(vector: Tensor, x: Tensor) -> Tensor:
    """A vector `[C]` in a shape that broadcasts with x `[G, n, C, ...]`."""
    return vector.reshape(-1, *[1] * (x.ndim - 3))
