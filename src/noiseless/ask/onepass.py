"""Options of `noiseless decompose`. This module does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from noiseless.recipes.checks import MOST_SEED, at_least

USUAL_UPDATES = (4, 16)
"""numbers of updates in a pass near which batch sizes are chosen where none are given"""


@dataclass(frozen=True)
class DecomposeOptions:
    """Which mini-batches are compared with the full batch, and at which rate."""

    batches: tuple[int, ...] = ()
    """examples in a batch; each must divide the number of examples; none: about a fourth and a sixteenth of them"""
    orders: int = 8
    """number of keyed orders, at least 3; each is also taken backwards"""
    lr: float | None = None
    """learning rate of both; none: that of the run at this step"""
    replacement: bool = True
    """also draw the examples of batches with replacement"""
    seed: int = 0
    """of the orders"""

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ValueError: naming the flag, its value and what it must be.
        """
        for batch in self.batches:
            at_least("batches", batch, 1)
        at_least("orders", self.orders, 3)
        at_least("seed", self.seed, 0, MOST_SEED)
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"--lr must be a positive, finite number, not {self.lr}")

    def sizes(self, examples: int) -> list[int]:
        """The batch sizes, in descending order.

        Args:
            examples: N.

        Returns:
            Those that are given, or the divisors of N that are nearest to the usual ones.
        """
        if self.batches:
            return sorted(set(self.batches), reverse=True)
        divisors = [size for size in range(1, examples // 2 + 1) if examples % size == 0]
        return sorted({min(divisors, key=lambda s: abs(s - examples / m)) for m in USUAL_UPDATES}, reverse=True)
