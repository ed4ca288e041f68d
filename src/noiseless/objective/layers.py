"""Layers of a module that a sweep cannot use as they are: refused with a remedy, or changed while it lasts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from noiseless.losses.terms import PerExample

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def check_trainable(module: nn.Module, loss: PerExample) -> None:
    """Refuses what an objective cannot train, and warns of sparse gradients, which are computed dense.

    Args:
        module: the module of an objective.
        loss: its loss.

    Raises:
        ValueError: for an embedding with `max_norm`, whose forward changes its weights, and for a loss with trainable
            parameters.
    """
    _refuse_learning(loss)
    for name, layer in module.named_modules():
        if isinstance(layer, EMBEDDINGS) and layer.max_norm is not None:
            raise ValueError(
                f"{name or 'the module'} is an embedding with max_norm={layer.max_norm:g}, so each forward changes its"
                " weights, and the loss is no function of the parameters: set max_norm to None, and shorten the rows"
                " after the optimizer's step where you need that"
            )
    sparse = [name for name, layer in module.named_modules() if isinstance(layer, EMBEDDINGS) and layer.sparse]
    if sparse:
        warnings.warn(
            f"the sparse gradients of {', '.join(sparse)} are computed dense: a sum over all examples has few zeros",
            stacklevel=4,
        )


def _refuse_learning(loss: PerExample) -> None:
    """Raises for a loss with trainable parameters."""
    own = list(loss.named_parameters()) if isinstance(loss, nn.Module) else []
    trainable = [name for name, p in own if p.requires_grad]
    if trainable:
        raise ValueError(
            f"the loss has trainable parameters ({', '.join(trainable)}), but only those that the module's forward uses"
            " are trained. Compute the loss in the forward, with the target as an input, and let the objective's loss"
            " return that output: EmpiricalRisk(module, lambda output, target: output, (x, y, y)); or freeze them with"
            " requires_grad_(False)"
        )


@contextmanager
def dense_gradients(module: nn.Module) -> Iterator[None]:
    """A context in which no embedding has sparse gradients.

    Args:
        module: the module of an objective.

    Yields:
        Nothing.
    """
    sparse = [layer for layer in module.modules() if isinstance(layer, EMBEDDINGS) and layer.sparse]
    try:
        for layer in sparse:
            layer.sparse = False
        yield
    finally:
        for layer in sparse:
            layer.sparse = True


@contextmanager
def centred_group_norms(module: nn.Module) -> Iterator[None]:
    """A context in which group norms subtract their groups' means from channels-last images before anything else.

    On CPUs, torch's kernel for that format computes a variance as the mean square minus the squared mean, which loses
    digits where the mean is not small. A group norm does not depend on a number that is subtracted from its group.

    Args:
        module: the module of an objective.

    Yields:
        Nothing.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.GroupNorm)]
    own = [layer.__dict__.get("forward") for layer in layers]
    for layer in layers:
        layer.forward = _centred(layer, layer.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward  # type: ignore[method-assign]


def _centred(layer: nn.GroupNorm, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def centred(x: Tensor, *args: Any, **named: Any) -> Tensor:
        if x.ndim != 4 or x.dtype != torch.float32 or x.device.type != "cpu" or x.is_contiguous():
            return forward(x, *args, **named)
        by_channel = x.detach().mean((2, 3)).unflatten(1, (layer.num_groups, -1))
        mean = by_channel.mean(2, keepdim=True).expand_as(by_channel).flatten(1)
        return forward(x - mean[:, :, None, None], *args, **named)

    return centred
