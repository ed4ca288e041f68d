"""Layers of a module that a sweep cannot use as they are: refused with a remedy, or changed while it lasts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

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
