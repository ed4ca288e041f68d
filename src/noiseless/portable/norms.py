"""Batch, group and layer norm by portable sums, with the arguments of ATen's operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from noiseless.portable import functions, sums


def _channels(vector: Tensor, x: Tensor) -> Tensor:
    """A vector `[C]` in a shape that broadcasts with x `[n, C, ...]`."""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


def _over(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`native_batch_norm`: output, mean and `1 / sqrt(variance + eps)`; writes the running statistics."""
    if training:
        variance, mean = sums.variance_and_mean(x, _over(x), 0, False)
        n = sums.count(x, _over(x))
        for running, new in ((running_mean, mean), (running_var, variance * (n / max(n - 1, 1)))):
            if running is not None:
                running.copy_(running * (1 - momentum) + new * momentum)
        rate = torch.ones_like(variance) / functions.sqrt(variance + eps)
        saved = mean, rate
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, rate = running_mean, torch.ones_like(running_var) / functions.sqrt(running_var + eps)
        saved = x.new_zeros(0), x.new_zeros(0)
    y = (x - _channels(mean, x)) * _channels(rate, x)
    y = y if weight is None else y * _channels(weight, x)
    return (y if bias is None else y + _channels(bias, x)), *saved


def legitimate_batch_norm(x: Tensor, weight: Any, bias: Any, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`_native_batch_norm_legit`, with running statistics or without."""
    return batch_norm(x, weight, bias, *(rest if len(rest) == 5 else (None, None, *rest)))


def batch_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    mean: Tensor | None, rate: Tensor | None, training: bool, eps: float, mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """`native_batch_norm_backward`: the gradients of x, weight and bias."""
    if not training:
        assert running_mean is not None
        assert running_var is not None
        mean, rate = running_mean, torch.ones_like(running_var) / functions.sqrt(running_var + eps)
    assert mean is not None
    assert rate is not None
    n, normal = sums.count(x, _over(x)), (x - _channels(mean, x)) * _channels(rate, x)
    d_bias, d_weight = sums.total(dy, _over(x)), sums.total(dy * normal, _over(x))
    scale = rate if weight is None else rate * weight
    dx = dy
    if training:
        dx = dy - _channels(d_bias / n, x) - normal * _channels(d_weight / n, x)
    return dx * _channels(scale, x), d_weight if mask[1] else None, d_bias if mask[2] else None


def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`native_layer_norm`: output, mean and `1 / sqrt(variance + eps)`."""
    variance, mean = sums.variance_and_mean(x, range(-len(shape), 0), 0, True)
    rate = torch.ones_like(variance) / functions.sqrt(variance + eps)
    y = (x - mean) * rate
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), mean, rate


def layer_norm_backward(
    dy: Tensor, x: Tensor, shape: Sequence[int], mean: Tensor, rate: Tensor, weight: Tensor | None, bias: Tensor | None,
    mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """`native_layer_norm_backward`: the gradients of x, weight and bias."""
    inner, outer = range(-len(shape), 0), list(range(x.ndim - len(shape)))
    normal = (x - mean) * rate
    slope = dy if weight is None else dy * weight
    dx = (slope - sums.mean(slope, inner, True) - normal * sums.mean(slope * normal, inner, True)) * rate

    def over_rows(t: Tensor) -> Tensor:
        return sums.total(t, outer) if outer else t.clone()

    return dx, over_rows(dy * normal) if mask[1] else None, over_rows(dy) if mask[2] else None


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, channels: int, positions: int, groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`native_group_norm`: output, mean and `1 / sqrt(variance + eps)`, both `[n, groups]`."""
    y, mean, rate = layer_norm(x.reshape(n, groups, -1), [channels // groups * positions], None, None, eps)
    y = y.reshape(x.shape)
    y = y if weight is None else y * _channels(weight, x)
    return (y if bias is None else y + _channels(bias, x)), mean.reshape(n, groups), rate.reshape(n, groups)


def group_norm_backward(
    dy: Tensor, x: Tensor, mean: Tensor, rate: Tensor, weight: Tensor | None, n: int, channels: int, positions: int,
    groups: int, mask: Sequence[bool],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """`native_group_norm_backward`: the gradients of x, weight and bias."""
    mean, rate, shape = mean.reshape(n, groups, 1), rate.reshape(n, groups, 1), (n, groups, -1)
    slope = (dy if weight is None else dy * _channels(weight, x)).reshape(shape)
    length = [channels // groups * positions]
    dx = layer_norm_backward(slope, x.reshape(shape), length, mean, rate, None, None, (True, False, False))[0]
    assert dx is not None
    normal = ((x.reshape(shape) - mean) * rate).reshape(x.shape)
    d_weight = sums.total(dy * normal, _over(x)) if mask[1] else None
    return dx.reshape(x.shape), d_weight, sums.total(dy, _over(x)) if mask[2] else None
