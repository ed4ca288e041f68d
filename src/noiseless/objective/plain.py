"""Batch, instance and layer norm in elementary operations: differentiable to any order, as torch's fused ones are not.

torch's batch and instance norms have no third derivative, and that of its layer norm is wrong (torch 2.14). Hessian
products of a penalised value need the third derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Batch norm of x `[G, n, C, ...]`, with the arguments and results of `NormBlocks.forward`."""
    dims = (1, *range(3, x.ndim))
    weight, bias = (p if p is None else p.reshape(-1, *[1] * (x.ndim - 3)) for p in (weight, bias))
    variance, mean = torch.var_mean(x.detach(), dims, correction=0)
    return _normalise(x, dims, weight, bias, eps), mean, torch.zeros_like(mean), variance


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer norm over the last dimensions, with the arguments of `torch.nn.functional.layer_norm`."""
    return _normalise(input, range(-len(normalized_shape), 0), weight, bias, eps)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Instance norm of x `[n, C, ...]`, with the arguments of `torch.nn.functional.instance_norm`."""
    if not use_input_stats:  # an affine map
        return F.instance_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    return _normalise(input, range(2, input.ndim), _by_channel(weight, input), _by_channel(bias, input), eps)


def functional_batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch norm over all rows, with the arguments of `torch.nn.functional.batch_norm`; writes no statistics."""
    if not training:  # an affine map
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    dims = (0, *range(2, input.ndim))
    return _normalise(input, dims, _by_channel(weight, input), _by_channel(bias, input), eps)


def _by_channel(vector: Tensor | None, x: Tensor) -> Tensor | None:
    """A vector `[C]` in a shape that broadcasts with x `[n, C, ...]`."""
    return None if vector is None else vector.reshape(-1, *[1] * (x.ndim - 2))


def _normalise(x: Tensor, dims: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    variance, mean = torch.var_mean(x, tuple(dims), correction=0, keepdim=True)
    x = (x - mean) * (variance + eps).rsqrt()
    x = x if weight is None else x * weight
    return x if bias is None else x + bias
