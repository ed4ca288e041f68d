"""torch's losses without their reduction: their mean, taken over the whole data set.

torch's losses with `reduction="mean"`, which is their default, are means over a batch. For most of them the mean over
the data set follows from one value for each example. Cross entropy and negative log-likelihood divide by the sum of the
targets' weights, in which targets equal to `ignore_index` have weight 0. That sum is one over all examples here, so the
objective is torch's loss of the whole data set in one batch, for any blocks.
"""

from __future__ import annotations

import copy
import inspect
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless.losses.terms import PerExample, Terms

_WEIGHTED = (F.cross_entropy, F.nll_loss)
_REDUCTIONS = ("mean", "none", "batchmean")


def unreduced(loss: PerExample) -> PerExample:
    """A loss whose mean over the data set is what torch's `reduction="mean"` gives for all examples in one batch.

    Args:
        loss: a loss of `torch.nn` or a function of `torch.nn.functional`, also in a `functools.partial`, with any
            reduction but "sum"; or any other callable, which is returned as it is.

    Returns:
        A loss in the form that `terms` takes.

    Raises:
        ValueError: for the reduction "sum".
    """
    if isinstance(loss, nn.Module):
        return _of_module(loss) if type(loss).__module__ == nn.modules.loss.__name__ else loss
    function = loss.func if isinstance(loss, partial) else loss
    given: dict[str, Any] = dict(loss.keywords) if isinstance(loss, partial) else {}
    if getattr(function, "__module__", None) != F.__name__ or (isinstance(loss, partial) and loss.args):
        return loss
    parameters = inspect.signature(function).parameters
    legacy = {name for name in ("size_average", "reduce") if given.get(name) is not None}
    if "reduction" not in parameters or legacy:
        return loss
    reduction = given.get("reduction", "mean")
    values: Any = partial(function, **(given | {"reduction": "none"}))
    weight, ignore_index = given.get("weight"), given.get("ignore_index", -100)
    return _with_weights(values, reduction, function in _WEIGHTED, weight, ignore_index)


def _of_module(loss: nn.Module) -> PerExample:
    reduction = getattr(loss, "reduction", None)
    if not isinstance(reduction, str):
        return loss
    values: Any = copy.copy(loss)
    values.reduction = "none"
    weighted = isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss)
    weight, ignore_index = getattr(loss, "weight", None), getattr(loss, "ignore_index", -100)
    return _with_weights(values, reduction, weighted, weight, ignore_index)


def _with_weights(
    values: PerExample, reduction: str, weighted: bool, weight: Tensor | None, ignore_index: int
) -> PerExample:
    """The values as they are, summed for each example ("batchmean"), or with the weights of their targets."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"an objective is a mean, but the loss has reduction={reduction!r}: use 'mean'")
    if reduction == "batchmean":
        return lambda output, target: values(output, target).flatten(1).sum(1)  # type: ignore[union-attr]
    if not weighted:
        return values

    def with_weights(output: Tensor, target: Tensor) -> Tensor | Terms:
        losses = values(output, target)  # already multiplied by the weights
        assert isinstance(losses, Tensor)
        if target.is_floating_point():  # probabilities of classes: torch divides by the number of targets
            return losses
        counted = target != ignore_index
        weights = counted if weight is None else weight.to(losses)[torch.where(counted, target, 0)] * counted
        return Terms(losses.flatten(), weights.to(losses.dtype).flatten())

    return with_weights
