"""What the blocks of a batch contribute to the sums of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.examples.blocks import Batch


@dataclass(frozen=True)
class BlockScores:
    """Losses, hits and metrics of the K blocks of a chunk."""

    loss: Tensor
    """loss, summed over each block's examples (where they have weights, times the weights), float64 `[K]`"""
    weight: Tensor
    """weight of each block in the mean: its number of examples, or the sum of their weights, float64 `[K]`"""
    hits: Tensor
    """correctly classified examples of each block, float64 `[K]`; NaN where this is no classification"""
    metrics: Tensor
    """sum of the values and sum of the weights of each of M metrics, float64 `[K, 2 M]`"""

    def scalars(self) -> dict[str, Tensor]:
        """The scores by name, as a sweep's report takes them."""
        return {"loss": self.loss, "weight": self.weight, "hits": self.hits, "metrics": self.metrics.T}


@dataclass(frozen=True)
class BlockGradients(BlockScores):
    """Scores, gradients and batch-norm statistics of the K blocks of a chunk."""

    gradient: Tensor
    """gradient of each block's mean loss, `[K, P]`"""
    square: Tensor
    """squared L2 norm of each gradient, float64 `[K]`"""
    statistics: Tensor
    """batch-norm statistics of each norm block, `[K, G, S]`; empty unless recorded"""
    unreached: Tensor
    """parameters that each block's loss does not reach, as bits, float64 `[K, R]`; see `reach.packed`"""


@dataclass(frozen=True)
class Contribution:
    """What the K blocks of a batch contribute to an objective."""

    direction: Tensor
    """`[K, P]`; the mean, weighted by count, is the objective's gradient or the direction used in its place"""
    penalty: Tensor
    """term added to each block's mean loss, float64 `[K]`"""
    statistics: Tensor
    """batch-norm statistics of all visits, `[K, visits * G, S]`"""
    block: BlockGradients
    """loss and gradient of the blocks in the risk, without penalty and clip"""

    @staticmethod
    def of(block: BlockGradients) -> Contribution:
        """The contribution of blocks to their mean loss itself."""
        return Contribution(block.gradient, torch.zeros_like(block.loss), block.statistics, block)


ByBlock = Callable[[Tensor, Batch], Contribution]
"""(theta `[P]`, batch) -> contribution of the batch's blocks"""
