"""Losses in their per-example form, and what counts as a hit.

The objective is a mean over examples, so it needs one value an example; any callable `(output, target)` that gives
them will do, torch's with `reduction="none"` included.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

PerExampleLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """`-log softmax(output)[target]`: output `[n, classes]`, target int64 `[n]`, result `[n]`."""
    return F.cross_entropy(output, target, reduction="none")


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """`(output - target)**2`, elementwise `[n, ...]`; the objective takes each example's mean over its elements."""
    return F.mse_loss(output, target, reduction="none")


def per_example(loss: PerExampleLoss, output: Tensor, target: Tensor) -> Tensor:
    """The losses of one block's examples.

    Args:
        loss: gives `[n]`, or `[n, ...]` of which each example's mean is taken, as torch's `reduction="mean"` does.
        output: the model's output, `[n, ...]`.
        target: `[n, ...]`.

    Returns:
        `[n]`.

    Raises:
        ValueError: if the loss does not give one value an example.
    """
    try:
        losses = loss(output, target)
    except IndexError as error:
        raise ValueError(f"the loss refuses a target: {error} (output {list(output.shape)})") from error
    if losses.ndim == 0 or len(losses) != len(target):
        raise ValueError(
            f"the loss must give one value an example, but gave shape {list(losses.shape)} for {len(target)} examples;"
            ' pass a loss with reduction="none"'
        )
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def count_hits(output: Tensor, target: Tensor) -> Tensor:
    """How many examples are classified correctly.

    Args:
        output: class scores `[n, classes]`; any other shape is no classification.
        target: class numbers, int64 `[n]`.

    Returns:
        float64 scalar, NaN where this is no classification.
    """
    if output.ndim != 2 or target.ndim != 1 or target.is_floating_point():
        return torch.full((), torch.nan, dtype=torch.float64, device=output.device)
    return (output.argmax(1) == target).sum(dtype=torch.float64)
