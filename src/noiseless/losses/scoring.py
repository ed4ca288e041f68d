"""Loss, hits and metrics of one block, from what the module returns for it. Step 3 of a training step."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from noiseless.examples.trees import Tree
from noiseless.losses.classification import classifies, count_hits
from noiseless.losses.keys import key_of
from noiseless.losses.terms import PerExample, terms
from noiseless.losses.torchlosses import unreduced


class Scoring:
    """The loss and the metrics of an objective.

    Args:
        loss: any loss of torch, or a per-example loss.
        metrics: functions of the same form, by name.

    Attributes:
        key: identifies these functions, for code that depends on them.

    Raises:
        ValueError: for a loss of torch with `reduction="sum"`, and for what is no function of output and target.
    """

    def __init__(self, loss: PerExample, metrics: Mapping[str, PerExample]):
        if not isinstance(metrics, Mapping):
            raise ValueError(f'metrics must be functions by name, {{"name": function}}, not {type(metrics).__name__}')
        for what, function in {"the loss": loss, **{f"the metric {name!r}": f for name, f in metrics.items()}}.items():
            _refuse_no_function(what, function)
        self._functions, self._names = (loss, *metrics.values()), tuple(metrics)
        self.key: tuple[Hashable, ...] = tuple(key_of(function) for function in self._functions)
        self._classifies = classifies(loss)
        self._loss, *self._metrics = [unreduced(function) for function in self._functions]

    def double(self) -> Scoring:
        """The same for outputs in float64: weights that a loss module holds are converted."""
        wide = [copy.deepcopy(f).double() if isinstance(f, nn.Module) else f for f in self._functions]
        return Scoring(wide[0], dict(zip(self._names, wide[1:], strict=True)))

    def __call__(self, output: Any, target: Tree, examples: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The scores of a block.

        Args:
            output: what the module returns for its examples.
            target: their targets: `[n, ...]`, or a tree of such tensors.
            examples: n.

        Returns:
            The block's mean loss, a scalar; and, without gradient and in float64, the numbers that `BlockScores` has of
            one block: loss, weight, hits, metrics.
        """
        loss = terms(self._loss, output, target, examples)
        weight = loss.weight()
        counted = self._classifies and isinstance(output, Tensor) and isinstance(target, Tensor)
        hits = count_hits(output.detach(), target) if counted else weight.new_full((), torch.nan)
        measured = [
            terms(metric, output, target, examples, f"the metric {name!r}")
            for name, metric in zip(self._names, self._metrics, strict=True)
        ]
        sums = [number for metric in measured for number in (metric.sum(), metric.weight())]
        return loss.mean(), (loss.sum(), weight, hits, torch.stack(sums) if sums else weight.new_zeros(0))


def _refuse_no_function(what: str, function: object) -> None:
    if isinstance(function, type) and issubclass(function, nn.Module):
        raise ValueError(f"{what} is the class {function.__name__}: give an instance, {function.__name__}()")
    if not callable(function):
        raise ValueError(f"{what} must be a function of output and target, not of type {type(function).__name__}")
