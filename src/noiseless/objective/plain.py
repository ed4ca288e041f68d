"""Batch norm and layer norm in elementary operations: differentiable to any order, as torch's fused ones are not.

torch's batch norm has no third derivative, and that of its layer norm is wrong (torch 2.14). Hessian products of a
penalised value need the third derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


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


class PlainLayerNorm(TorchFunctionMode):
    """Context manager that replaces `torch.nn.functional.layer_norm` by the `layer_norm` above."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function, or its replacement."""
        return (layer_norm if func is F.layer_norm else func)(*args, **(kwargs or {}))


def _normalise(x: Tensor, dims: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    variance, mean = torch.var_mean(x, tuple(dims), correction=0, keepdim=True)
    x = (x - mean) * (variance + eps).rsqrt()
    x = x if weight is None else x * weight
    return x if bias is None else x + bias
