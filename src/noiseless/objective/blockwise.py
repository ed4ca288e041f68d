"""Objectives that are means over the blocks of a risk. Steps 2 to 5 of a training step."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, cast

from noiseless.objective.base import Evaluation, Objective
from noiseless.objective.contribution import ByBlock

if TYPE_CHECKING:
    from noiseless.objective.risk import EmpiricalRisk


class Blockwise(Objective):
    """An objective whose value and direction are means over the blocks, weighted by count."""

    visits: int = 1
    """how often an evaluation records the statistics of each norm block"""

    @abstractmethod
    def by_block(self) -> ByBlock:
        """A function that computes the contribution of blocks; sweeps that it needs are done before this returns."""

    def evaluate(self) -> Evaluation:
        """Value and direction from one sweep, after the sweeps of `by_block`."""
        return risk_of(self).mean(self.by_block(), self.passes, self.visits)


def risk_of(objective: Objective) -> EmpiricalRisk:
    """The risk that an objective wraps, at any depth."""
    while objective.wrapped is not None:
        objective = objective.wrapped
    return cast("EmpiricalRisk", objective)
