"""Batch norm of norm blocks with sums that are as accurate as float32 allows: the arithmetic of `BlockNorm` on CPUs.

torch's kernel for channels-last tensors on CPUs adds a channel's values one by one, so the error of its statistics
grows with their number. `torch.sum` adds pairwise, in any layout. Means are taken first, then the variance of what is
left, in the forward; the backward takes its two sums in the same way.
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
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Normalises norm blocks of equal size.

        Args:
            x: `[G, n, C, ...]`.
            weight: `[C]`; None: 1.
            bias: `[C]`; None: 0.
            eps: added to the variance.

        Returns:
            y, of x's shape and dtype; means and biased variances, `[G, C]`, which are not differentiable.
        """
        sums = _summed(x)
        mean = _mean(x, sums)
        centred = x - mean
        variance = _mean(centred.square(), sums)
        scale = (variance + eps).rsqrt()
        scale = scale if weight is None else scale * _channels(weight, x)
        y = centred * scale if bias is None else torch.addcmul(_channels(bias, x), centred, scale)
        return y.to(x.dtype), mean.reshape(len(x), -1), variance.reshape(len(x), -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keeps what the backward needs: x and its statistics, but not `x - mean`, which is computed again."""
        x, weight, bias, ctx.eps = inputs
        _, mean, variance = output
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.mark_non_differentiable(mean, variance)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias."""
        (given, *_), (x, weight, mean, variance) = gradients, ctx.saved_tensors
        sums, shape = _summed(x), [len(x), 1, x.shape[2]] + [1] * (x.ndim - 3)
        rate = (variance + ctx.eps).rsqrt().reshape(shape)
        centred = x - mean.reshape(shape)
        count = x[0, :, 0].numel()
        given_sum = given.sum(sums, keepdim=True, dtype=mean.dtype)
        product_sum = (given * centred).sum(sums, keepdim=True) * rate
        scale = rate if weight is None else rate * _channels(weight, x)
        dx = torch.addcmul(-scale * given_sum / count, given.to(mean.dtype), scale)
        dx = torch.addcmul(dx, centred, -scale * rate * product_sum / count).to(x.dtype)
        d_weight = None if weight is None else product_sum.reshape(len(x), -1).sum(0).to(weight.dtype)
        d_bias = None if ctx.bias_dtype is None else given_sum.reshape(len(x), -1).sum(0).to(ctx.bias_dtype)
        return dx, d_weight, d_bias, None


def _summed(x: Tensor) -> list[int]:
    """The dimensions of `[G, n, C, ...]` over which the sums of a norm block are taken."""
    return [1, *range(3, x.ndim)]


def _mean(x: Tensor, sums: list[int]) -> Tensor:
    """The mean over those dimensions, kept as 1, in at least float32."""
    return x.mean(sums, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))


def _channels(vector: Tensor, x: Tensor) -> Tensor:
    """A vector `[C]` in the shape that multiplies `[G, n, C, ...]`."""
    return vector.reshape(-1, *[1] * (x.ndim - 3))
