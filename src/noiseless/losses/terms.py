"""The terms of a mean over examples: what a loss or a metric returns for one block. Step 3 of a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noiseless.examples.trees import Tree, first_tensor


@dataclass(frozen=True)
class Terms:
    """Numerators and denominators of a ratio of sums, which is taken over the whole data set."""

    values: Tensor
    """`[m]`: one value for each example, or for each element that has a weight of its own; times its weight"""
    weights: Tensor | None = None
    """`[m]`, without gradient; None: 1 for each example"""

    def mean(self) -> Tensor:
        """The block's ratio, a scalar in the dtype of the values; where all weights are 0, it is 0."""
        if self.weights is None:
            return self.values.mean()
        weight = self.weight().to(self.values.dtype)
        return self.values.sum() / torch.where(weight == 0, 1, weight)

    def sum(self) -> Tensor:
        """The sum of the values, a float64 scalar without gradient."""
        return self.values.detach().sum(dtype=torch.float64)

    def weight(self) -> Tensor:
        """The sum of the weights, a float64 scalar."""
        if self.weights is None:
            return torch.full((), len(self.values), dtype=torch.float64, device=self.values.device)
        return self.weights.sum(dtype=torch.float64)


PerExample = Callable[[Any, Any], Tensor | tuple[Tensor, Tensor] | Terms]
"""(what the model returns, target `[n, ...]` or a tree) -> values `[n]` or `[n, ...]`, (values, weights), or `Terms`"""


def terms(loss: PerExample, output: Any, target: Tree, examples: int | None = None, what: str = "the loss") -> Terms:
    """The terms of one block's examples.

    Args:
        loss: returns values `[n]`, one for each example, or `[n, ...]`; a tuple of values v and weights w, whose mean
            is `sum_i w_i v_i / sum_i w_i`, where the weights are `[n]` or of the values' shape. Values `[n, ...]` whose
            elements have no weights of their own are averaged for each example; or `Terms`.
        output: what the model returns: `[n, ...]`, or anything that the loss takes.
        target: `[n, ...]`, or a tree of such tensors.
        examples: n; None: the length of the target's first tensor.
        what: the function, for messages.

    Returns:
        The terms.

    Raises:
        ValueError: if the loss does not return one value for each example, raises an error on a target, broadcasts
            output and target, or returns weights of another shape.
    """
    try:
        returned = loss(output, target)
    except IndexError as error:
        shape = f" (output {list(output.shape)})" if isinstance(output, Tensor) else ""
        raise ValueError(f"{what} refuses a target: {error}{shape}") from error
    if isinstance(returned, Terms):
        return returned
    values, weights = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(values, Tensor) or not isinstance(weights, Tensor | None):
        raise ValueError(
            f"{what} must return a tensor of one value for each example, or a tuple of values and weights, not"
            f" {type(returned).__name__}"
        )
    count = len(first_tensor(target)) if examples is None else examples
    if values.ndim == 0 or len(values) != count:
        raise ValueError(
            f"{what} must give one value an example, but gave shape {list(values.shape)} for {count} examples;"
            " use a loss of torch, or leave out the mean at its end"
        )
    if isinstance(output, Tensor) and isinstance(target, Tensor) and _is_broadcast(values, output, target):
        raise ValueError(
            f"{what} broadcasts the output {list(output.shape)} and the target {list(target.shape)} to"
            f" {list(values.shape)}, so that it pairs examples with each other; give both one shape: a target of"
            " [n, 1] for an output of [n, 1], or output.squeeze(1)"
        )
    if weights is not None and weights.shape not in (values.shape, values.shape[:1]):
        raise ValueError(
            f"{what} returns weights of shape {list(weights.shape)} for values of shape {list(values.shape)}: give"
            " one weight for each value, or one for each example"
        )
    if weights is None or weights.ndim == 1:
        values = values.flatten(1).mean(1) if values.ndim > 1 else values
    if weights is None:
        return Terms(values)
    weights = weights.detach().flatten()
    return Terms(weights * values.flatten(), weights)


def _is_broadcast(values: Tensor, output: Tensor, target: Tensor) -> bool:
    """Whether a loss was computed element by element from tensors with different numbers of dimensions."""
    if values.ndim == 1 or output.ndim == target.ndim:
        return False
    if values.shape == output.shape and not target.is_floating_point():  # one value for each class score
        return False
    try:
        return values.shape == torch.broadcast_shapes(output.shape, target.shape)
    except RuntimeError:
        return False
