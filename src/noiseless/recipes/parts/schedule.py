"""The part of a recipe about the length of a run and the learning rate along it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from noiseless.recipes.checks import at_least, positive, without_effect

LARGEST_GROWTH = 500.0
"""largest logarithm of the factor by which the learning rate may grow in a run"""


@dataclass(frozen=True)
class Schedule:
    """How long a run is, and the learning rate along it."""

    steps: int = 3000
    """steps of the run; a step with several updates (stochastic, or with --parts) is one pass over the data"""
    stop_perfect: int = 0
    """end the run after this many successive steps with all training examples correct; 0: never before --steps"""
    name: Literal["cosine", "cosine-floor", "multi-step", "exponential", "constant"] = "cosine"
    """learning rate after the warm-up; cosine-floor ends at lr / 25; multi-step falls to a tenth at 3/8, 5/8 and 7/8 of
    the steps"""
    rate_by: Literal["step", "update"] = "step"
    """when the learning rate changes: once in each step, or at each update of a step"""
    warmup: int = 0
    """steps of linear warm-up from 0"""
    horizon: int | None = None
    """steps in which the cosine falls to 0 or its floor; None: as many as --steps"""
    decay: float = 0.99
    """factor of the exponential schedule for each step"""

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
        if self.name == "exponential" and self.steps * math.log(self.decay) > LARGEST_GROWTH:
            raise ValueError(
                f"--decay {self.decay} lets the learning rate overflow in --steps {self.steps}: give a smaller"
                " one, such as 0.99"
            )
        if self.name != "exponential":
            without_effect("decay", self.decay, Schedule.decay, "--schedule exponential")
