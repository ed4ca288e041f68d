"""The part of a recipe about what is minimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noiseless.recipes.checks import at_least, below_one, positive


@dataclass(frozen=True)
class Objective:
    """What an update minimises: over which examples, in which blocks, with which loss and penalties."""

    regime: Literal["full-batch", "stochastic", "switch"] = "full-batch"
    """full-batch: one update a step, or one a part; stochastic: one a block; switch: the second, then the first"""
    switch: int = 0
    """first step with the full batch, in the regime switch"""
    parts: int = 1
    """updates of a full-batch step: each renews the gradient of one of so many fixed parts of the examples, and goes
    along the mean of all parts' newest"""
    block: int = 128
    """examples a block: for the penalty, and for an update of the stochastic regime"""
    norm_block: int | None = None
    """examples that batch norm normalises together, divides the block; none: the block"""
    drop_last: bool = False
    """a short last block is left out"""
    shuffle: bool | None = None
    """blocks are cut anew from a shuffled order at each step; none: in the stochastic regime, not for the full batch"""
    replacement: bool = False
    """the stochastic regime draws examples with replacement"""
    statistics: Literal["average", "ema"] = "average"
    """batch norm's running statistics: average over the sweep, or exponential; stochastic updates use the second"""
    loss: Literal["cross-entropy", "incorrect"] = "cross-entropy"
    """incorrect: cross entropy of the examples that are classified wrongly, 0 for the others"""
    label_smoothing: float = 0.0
    """share of the target that is spread evenly over all classes"""
    max_up: int = 1
    """augmented draws of each example, of which the one with the largest loss counts"""
    sam: float = 0.0
    """radius of sharpness-aware minimisation over the whole objective; 0: off"""
    penalty: float = 0.0
    """strength of the penalty on the block gradients' norms: adds (lr / 8) * penalty * mean ||g_b||^2"""
    full_penalty: float = 0.0
    """strength of the penalty on the full gradient's norm"""
    penalty_method: Literal["forward", "central", "exact"] = "forward"
    """Hessian products by forward or central differences, or exact by double backward"""
    penalty_eps: float = 1e-2
    """length of the finite-difference probe"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        at_least("switch", self.switch, 0)
        at_least("parts", self.parts, 1)
        at_least("block", self.block, 1)
        positive("norm-block", self.norm_block)
        below_one("label-smoothing", self.label_smoothing)
        at_least("max-up", self.max_up, 1)
        at_least("sam", self.sam, 0)
        at_least("penalty", self.penalty, 0)
        at_least("full-penalty", self.full_penalty, 0)
        positive("penalty-eps", self.penalty_eps)
        if (self.regime == "switch") != (self.switch > 0):
            raise ValueError("--switch N and --regime switch belong together: N is the first step with the full batch")
        if self.replacement and self.regime == "full-batch":
            raise ValueError(
                "--replacement draws the examples of stochastic updates; the full batch holds each one once"
            )
        if self.parts > 1 and (self.regime != "full-batch" or self.drop_last):
            raise ValueError(
                f"--parts {self.parts} divides all examples of the full batch: use --regime full-batch without"
                " --drop-last, or --parts 1"
            )
        if self.block % self.max_up:
            raise ValueError(
                f"--block {self.block} must be divisible by --max-up {self.max_up}: it counts draws, and those of an"
                " image stay in one block"
            )
