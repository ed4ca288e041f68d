"""Loss, hits and metrics of a sweep, from the numbers that its blocks have reported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from noiseless.objective.exactsum import exact_total
from noiseless.objective.partial import Sums


@dataclass(frozen=True)
class Scores:
    """Means over all blocks of a sweep, from exact sums."""

    loss: float
    """sum of the losses over the sum of their weights"""
    hits: int | None
    """examples classified correctly; None where this is no classification"""
    metrics: Mapping[str, float]
    """mean of each metric; NaN where all its weights are 0"""
    weights: Tensor
    """weight of each block, float64 `[blocks]`"""
    weight: float
    """sum of the weights"""

    @staticmethod
    def rows(metrics: Sequence[str]) -> dict[str, int]:
        """Name -> how many numbers each block reports, as `EmpiricalRisk.sweep` takes it."""
        return {"loss": 1, "weight": 1, "hits": 1, "metrics": 2 * len(metrics)}

    @staticmethod
    def of(summed: Sums, metrics: Sequence[str]) -> Scores:
        """The scores of a sweep.

        Args:
            summed: its sums, with these rows.
            metrics: names of the metrics.

        Returns:
            The scores.

        Raises:
            ValueError: if a weight is negative or not finite, or all are 0.
        """
        weights = summed.scalars["weight"][0]
        weight = total_weight(weights)
        hits = exact_total(summed.scalars["hits"][0])
        sums = [exact_total(row) for row in summed.scalars["metrics"]]
        pairs = zip(metrics, sums[::2], sums[1::2], strict=True)
        return Scores(
            exact_total(summed.scalars["loss"][0]) / weight,
            None if math.isnan(hits) else int(hits),
            {name: total / count if count else math.nan for name, total, count in pairs},
            weights,
            weight,
        )


def total_weight(weights: Tensor) -> float:
    """The sum of the blocks' weights, by which sums over blocks are divided.

    Args:
        weights: float64 `[blocks]`.

    Returns:
        The sum, above 0.

    Raises:
        ValueError: if a weight is negative or not finite, or all are 0.
    """
    if not bool(((weights >= 0) & (weights < torch.inf)).all()):
        raise ValueError(f"the weights of a block sum to {weights.min():g}: the loss must return weights >= 0")
    weight = exact_total(weights)
    if weight == 0:
        raise ValueError("all weights are 0, so there is no mean loss: is each target equal to ignore_index?")
    return weight


SCALARS: Mapping[str, int] = MappingProxyType(Scores.rows(()) | {"penalty": 1, "square": 1})
"""numbers that an evaluation without metrics stores for each block: scores, penalty, the gradient's squared norm"""
