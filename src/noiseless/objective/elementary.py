"""Replaces operations whose higher derivatives torch lacks, or has wrong, by elementary ones that agree with them.

`AnyOrder` is on where a block's loss is differentiated more than once: in Hessian products and the exact penalty. What
torch 2.14 has is listed at each replacement; tests/objective/test_derivatives.py sweeps torch's layers and losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from noiseless.objective import plain


class AnyOrder(TorchFunctionMode):
    """Context manager in which torch's operations can be differentiated to any order, and rightly.

    A replacement computes in at least float32, as torch's kernels do, and returns the dtype of torch's operation. That
    is executed as well, without gradients: for its dtype, the errors that it raises, and the statistics that it writes.
    """

    def __enter__(self) -> AnyOrder:
        """Switches the fused kernels of attention off, which have no second derivative, and replaces the others."""
        self._kernels = ExitStack()
        self._kernels.enter_context(sdpa_kernel(SDPBackend.MATH))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Restores torch's operations."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._kernels.close()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function, or its replacement."""
        kwargs = kwargs or {}
        if func in _RECURRENT:
            with torch.backends.cudnn.flags(enabled=False):  # cuDNN's have no second derivative
                return func(*args, **kwargs)
        if func in _IN_PLACE:
            return args[0].copy_(_IN_PLACE[func](args[0]))
        if func not in _REPLACED:
            return func(*args, **kwargs)
        if kwargs.get("inplace"):
            return args[0].copy_(_REPLACED[func](args[0]))
        with torch.no_grad():
            like = func(*tree_map_only(Tensor, Tensor.detach, args), **tree_map_only(Tensor, Tensor.detach, kwargs))
        return _REPLACED[func](*tree_map_only(Tensor, _widened, args), **kwargs).to(like.dtype)


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """`g v / ||v||`, as `torch._weight_norm`, whose second derivative is wrong: not even symmetric."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """`min(max(x + 3, 0), 6) / 6`, as `torch.nn.functional.hardsigmoid`, which has no second derivative."""
    return F.hardtanh(input + 3, 0.0, 6.0) / 6


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sums, means or maxima of bags of rows, as `torch.nn.functional.embedding_bag`, without a second derivative."""
    if offsets is None:
        lengths = torch.full((len(input),), input.shape[1], device=input.device)
    else:
        end = offsets.new_tensor([] if include_last_offset else [len(input)])
        lengths = torch.cat((offsets, end)).diff()
    bags, bag = len(lengths), torch.arange(len(lengths), device=input.device).repeat_interleave(lengths)
    input = input.reshape(-1)
    factor = None if per_sample_weights is None else per_sample_weights.reshape(-1, 1)
    if padding_idx is not None:
        kept = input != padding_idx % len(weight)
        input, bag, factor = input[kept], bag[kept], None if factor is None else factor[kept]
    rows = F.embedding(input, weight, scale_grad_by_freq=scale_grad_by_freq)
    rows = rows if factor is None else rows * factor
    empty = rows.new_zeros(bags, weight.shape[1])
    if mode == "max":
        return empty.scatter_reduce(0, bag[:, None].expand_as(rows), rows, "amax", include_self=False)
    total = empty.index_add(0, bag, rows)
    return total if mode == "sum" else total / bag.bincount(minlength=bags).clamp(min=1)[:, None]


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`sum_(i != y) w_y max(0, margin - x_y + x_i)**p / C`, as torch's loss, which has no second derivative."""
    classes, index = input.shape[-1], target.unsqueeze(-1)
    terms = F.relu(margin - input.gather(-1, index) + input) ** p
    terms = terms if weight is None else terms * weight[index]
    losses = terms.scatter(-1, index, 0.0).sum(-1) / classes
    return _reduced(losses, size_average, reduce, reduction)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`sum_(j in labels, i not) max(0, 1 - x_j + x_i) / C`, as torch's loss, which has no second derivative."""
    labels = (target >= 0).cumprod(-1)  # those before the first -1
    index = target.clamp(min=0)
    others = 1 - torch.zeros_like(target).scatter_reduce(-1, index, labels, "amax")
    terms = F.relu(1 - input.gather(-1, index).unsqueeze(-1) + input.unsqueeze(-2))
    losses = (terms * labels.unsqueeze(-1) * others.unsqueeze(-2)).sum((-1, -2)) / input.shape[-1]
    return _reduced(losses, size_average, reduce, reduction)


def _reduced(losses: Tensor, size_average: bool | None, reduce: bool | None, reduction: str) -> Tensor:
    """Losses by example, or their mean or sum, as torch's losses name it, before and after 0.4.1."""
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x


def _batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *rest: Any) -> Tensor:
    return plain.functional_batch_norm(x, mean, var, weight, bias, training, *rest[:2])


def _instance_norm(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, use: bool, *rest: Any) -> Tensor:
    return plain.instance_norm(x, mean, var, weight, bias, use, *rest[:2])


def _layer_norm(input: Tensor, normalized_shape: Any, *rest: Any, cudnn_enable: bool = True, **named: Any) -> Tensor:
    return plain.layer_norm(input, normalized_shape, *rest[:3], **named)


_REPLACED: Mapping[Callable[..., Any], Callable[..., Tensor]] = MappingProxyType(
    {
        torch._weight_norm: weight_norm,
        F.hardsigmoid: hardsigmoid,
        torch._C._nn.hardsigmoid: hardsigmoid,
        F.embedding_bag: embedding_bag,
        F.multi_margin_loss: multi_margin_loss,
        F.multilabel_margin_loss: multilabel_margin_loss,
        F.layer_norm: plain.layer_norm,
        F.instance_norm: plain.instance_norm,
        F.batch_norm: plain.functional_batch_norm,
        torch.layer_norm: _layer_norm,
        torch.instance_norm: _instance_norm,
        torch.batch_norm: _batch_norm,
    }
)
_IN_PLACE: Mapping[Callable[..., Any], Callable[..., Tensor]] = MappingProxyType(
    {torch._C._nn.hardsigmoid_: hardsigmoid}
)
_RECURRENT = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})
