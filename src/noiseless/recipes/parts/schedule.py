"""The part of a recipe about the length of a run and the learning rate along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noiseless.recipes.checks import at_least, positive, without_effect


@dataclass(frozen=True)
class Schedule:
    """How long a run is, and the learning rate along it."""

    steps: int = 3000
    """steps of the run; a stochastic step, or one with parts, is one pass over the data with several updates"""
    stop_perfect: int = 0
    """the run ends after this many steps in a row with all training examples correct; 0: never before its steps"""
    name: Literal["cosine", "cosine-floor", "multi-step", "exponential", "constant"] = "cosine"
    """learning rate after the warm-up; cosine-floor ends at lr / 25, multi-step falls to a tenth at 3/8, 5/8, 7/8"""
    rate_by: Literal["step", "update"] = "step"
    """when the learning rate moves: once a step, or at each of a step's updates"""
    warmup: int = 0
    """steps of linear warm-up from 0"""
    horizon: int | None = None
    """steps in which the cosine falls to 0 or its floor; none: the run's steps"""
    decay: float = 0.99
    """factor a step of the exponential schedule"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        at_least("steps", self.steps, 1)
        at_least("stop-perfect", self.stop_perfect, 0)
        at_least("warmup", self.warmup, 0)
        positive("horizon", self.horizon)
        positive("decay", self.decay)
        if self.name != "exponential":
            without_effect("decay", self.decay, Schedule.decay, "--schedule exponential")
