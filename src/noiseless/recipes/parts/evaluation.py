"""The part of a recipe about what is evaluated on the test images."""

from __future__ import annotations

from dataclasses import dataclass

from noiseless.recipes.checks import below_one


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated on the test images."""

    ema: float = 0.0
    """momentum of an exponential moving average of parameters and buffers, which is evaluated in their place; 0: off"""
    test_flips: bool = False
    """average the class probabilities of each test image with those of its mirror image"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        below_one("ema", self.ema)
