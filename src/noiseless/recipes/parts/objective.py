"""The part of a recipe about what is minimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noiseless.recipes.checks import at_least, below_one, known_or_code, positive
from noiseless.trust import is_code

LOSSES = ("cross-entropy", "incorrect")
"""losses that are built in"""


@dataclass(frozen=True)
class Objective:
    """What an update minimises: over which examples, in which blocks, with which loss and penalties."""

    regime: Literal["full-batch", "stochastic", "switch"] = "full-batch"
    """full-batch: one update in each step, or one for each of --parts; stochastic: one update for each block; switch:
    stochastic, then full-batch"""
    switch: int = 0
    """first full-batch step of --regime switch"""
    parts: int = 1
    """updates in a full-batch step: the examples are divided into this number of fixed parts, and each update computes
    a new gradient of one part and moves along the mean of the newest gradients of all parts"""
    block: int = 128
    """examples in a block: the penalty's unit, and the mini-batch of the stochastic regime"""
    norm_block: int | None = None
    """examples that batch norm normalises together, a divisor of --block; None: as many as --block"""
    drop_last: bool = False
    """leave out a short last block"""
    shuffle: bool | None = None
    """cut new blocks from a shuffled order at each step; None: only at stochastic steps"""
    replacement: bool = False
    """draw the examples of stochastic steps with replacement"""
    draw: Literal["examples", "norm-blocks"] = "examples"
    """what stochastic steps draw: examples; or norm-blocks, which are cut once, in the order of the data set, so that
    batch norm normalises the same examples together in each pass"""
    statistics: Literal["average", "ema"] = "average"
    """batch norm's running statistics; average: exact average over the sweep; ema: exponential moving average, which
    stochastic updates always use"""
    loss: str = "cross-entropy"
    """loss of an example: cross-entropy, incorrect (cross entropy where the example is misclassified, else 0) or
    package.module:name, a function of output and target or a loss of torch"""
    loss_options: str = ""
    """arguments of a loss package.module:name, written as in a call: NAME=VALUE,NAME=VALUE"""
    label_smoothing: float = 0.0
    """share of the target that is spread evenly over all classes"""
    max_up: int = 1
    """augmented draws of each example, of which only the one with the largest loss counts"""
    sam: float = 0.0
    """radius of sharpness-aware minimisation (SAM) of the full objective; 0: off"""
    penalty: float = 0.0
    """strength of the penalty on the block gradients' norms: adds (lr / 8) * penalty * mean ||g_b||^2"""
    full_penalty: float = 0.0
    """strength of the penalty on the full gradient's norm"""
    penalty_method: Literal["forward", "central", "exact"] = "forward"
    """Hessian-vector products of the penalties: by forward or central differences, or exact by double backward"""
    penalty_eps: float = 1e-2
    """length of the finite-difference step"""

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty, on the block gradients or on the full one."""
        return self.penalty > 0 or self.full_penalty > 0

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        at_least("switch", self.switch, 0)
        at_least("parts", self.parts, 1)
        at_least("block", self.block, 1)
        positive("norm-block", self.norm_block)
        known_or_code("loss", self.loss, LOSSES)
        if is_code(self.loss) and self.label_smoothing:
            raise ValueError(
                f"--label-smoothing {self.label_smoothing:g} belongs to the built-in losses: let {self.loss} smooth the"
                " targets"
            )
        if self.loss_options and not is_code(self.loss):
            raise ValueError(f"--loss-options {self.loss_options!r} do nothing without a --loss package.module:name")
        below_one("label-smoothing", self.label_smoothing)
        at_least("max-up", self.max_up, 1)
        at_least("sam", self.sam, 0)
        at_least("penalty", self.penalty, 0)
        at_least("full-penalty", self.full_penalty, 0)
        positive("penalty-eps", self.penalty_eps)
        if self.regime == "switch" and not self.switch:
            raise ValueError("--regime switch needs --switch N: N is the first step with the full batch")
        if self.switch and self.regime != "switch":
            raise ValueError(
                f"--switch {self.switch} does nothing with --regime {self.regime}: add --regime switch, or leave it out"
            )
        if self.replacement and self.regime == "full-batch":
            raise ValueError(
                "--replacement draws the examples of stochastic updates; the full batch holds each one once"
            )
        self._check_draw()
        if self.parts > 1 and self.regime != "full-batch":
            raise ValueError(
                f"--parts {self.parts} divides the full batch, and --regime {self.regime} has stochastic updates: give"
                " --regime full-batch, or --parts 1"
            )
        if self.parts > 1 and self.drop_last:
            raise ValueError(
                f"--parts {self.parts} divides all examples, and --drop-last leaves some out: give one of them"
            )
        if self.block % self.max_up:
            raise ValueError(
                f"--block {self.block} must be divisible by --max-up {self.max_up}: a block counts draws, and all draws"
                " of an image are in one block"
            )

    def _check_draw(self) -> None:
        """Refuses what fixed blocks that are drawn as mini-batches cannot be combined with."""
        if self.draw != "norm-blocks":
            return
        if self.regime == "full-batch":
            raise ValueError(
                "--draw norm-blocks draws mini-batches, and the full batch has none: add --regime stochastic"
            )
        if self.shuffle is False:
            raise ValueError("--draw norm-blocks draws blocks in a random order: leave out --shuffle False")
        if self.max_up > 1:
            raise ValueError(
                f"--draw norm-blocks draws blocks once each, and --max-up {self.max_up} several times: give one of them"
            )
