"""Batch norm of norm blocks with sums that are as accurate as float32 allows: the arithmetic of `BlockNorm`.

torch's kernel for channels-last tensors on CPUs adds a channel's values one by one, so the error of its statistics
grows with their number. Here a sum is over each example's places, then over the examples: neither loop is long, in any
layout, and in compiled code as well. A first mean m is subtracted before the others are taken: of `x - m` the mean,
which is what rounding has left in m, and the mean square.
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
            y, of x's shape and dtype; and without gradient, `[G, C]` each: m, a first mean; the mean of `x - m`, by
            which m is off; the biased variance.
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
        """Keeps what the backward needs: x and its statistics, but not `x - m`, which is computed again."""
        x, weight, bias, ctx.eps = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x, weight, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias."""
        (given, *_), (x, weight, *statistics) = gradients, ctx.saved_tensors
        first, rest, variance = (t.reshape(len(x), 1, -1, *[1] * (x.ndim - 3)) for t in statistics)
        rate = (variance + ctx.eps).rsqrt()
        centred, given = x - first, given.to(first.dtype)
        count = x[0, :, 0].numel()
        given_sum = _sum(given)
        product_sum = (_sum(given * centred) - rest * given_sum) * rate  # of the gradient and the normalised x
        scale = rate if weight is None else rate * _channels(weight, x)
        slope = rate * product_sum / count
        dx = given + (slope * rest - given_sum / count)  # what cancels is subtracted before the scale multiplies it
        dx = (torch.addcmul(dx, centred, slope, value=-1) * scale).to(x.dtype)
        d_weight = None if weight is None else product_sum.reshape(len(x), -1).sum(0).to(weight.dtype)
        d_bias = None if ctx.bias_dtype is None else given_sum.reshape(len(x), -1).sum(0).to(ctx.bias_dtype)
        return dx, d_weight, d_bias, None


def _sum(x: Tensor) -> Tensor:
    """The sum over examples and places of `[G, n, C, ...]`, `[G, 1, C, 1, ...]`, in at least float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.ndim > 3:
        x = x.sum(list(range(3, x.ndim)), keepdim=True, dtype=dtype)
    return x.sum(1, keepdim=True, dtype=dtype)


def _mean(x: Tensor) -> Tensor:
    """The mean over the same."""
    return _sum(x) / x[0, :, 0].numel()


def _channels(vector: Tensor, x: Tensor) -> Tensor:
    """A vector `[C]` in the shape that multiplies `[G, n, C, ...]`."""
    return vector.reshape(-1, *[1] * (x.ndim - 3))
