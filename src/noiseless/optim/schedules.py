"""Schedules: the learning rate as a pure function of the step, so that resume has nothing to restore.

All begin with a linear warm-up from 0: step t (from 0) has `lr * t / warmup` for `t <= warmup`. (A first step at
learning rate 0 moves nothing; the published schedule has it so.) What follows is measured from the published code
(arXiv 2109.14119), with its one-step offset.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""step (from 0) -> learning rate"""


def cosine(lr: float, warmup: int, horizon: int, floor: float = 0.0) -> Schedule:
    """`floor + (lr - floor) * (1 + cos(pi (t - warmup - 1) / horizon)) / 2` after the warm-up.

    Args:
        lr: the peak.
        warmup: steps of the linear warm-up.
        horizon: steps in which the cosine falls to the floor. A run may end before, at a rate well above it.
        floor: the rate at the horizon, at which it stays from there on.

    Returns:
        The schedule.
    """

    def after(t: int) -> float:
        share = min(max((t - warmup - 1) / horizon, 0.0), 1.0)
        return floor + (lr - floor) * (1 + math.cos(math.pi * share)) / 2

    return _warmed(lr, warmup, after)


def multi_step(lr: float, warmup: int, steps: int) -> Schedule:
    """A tenth of the rate from each of 3/8, 5/8 and 7/8 of the run's steps on."""
    milestones = [steps * eighths / 8 for eighths in (3, 5, 7)]
    return _warmed(lr, warmup, lambda t: lr * 0.1 ** sum(t >= m for m in milestones))


def exponential(lr: float, warmup: int, decay: float) -> Schedule:
    """`lr * decay**(t - warmup)` after the warm-up."""
    return _warmed(lr, warmup, lambda t: lr * decay ** (t - warmup))


def constant(lr: float, warmup: int) -> Schedule:
    """The same rate at every step after the warm-up."""
    return _warmed(lr, warmup, lambda t: lr)


def _warmed(lr: float, warmup: int, after: Schedule) -> Schedule:
    return lambda t: lr * t / warmup if t <= warmup and warmup > 0 else after(t)
