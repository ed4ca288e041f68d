"""Schedules: the learning rate as a pure function of the step, so that resume has nothing to restore.

All begin with a linear warm-up from 0: step t (from 0) has `lr * t / warmup` for `t <= warmup`. (A first step at
learning rate 0 moves nothing, as in the published code.) The cosine after it was measured from the published code
(arXiv 2109.14119), including its offset of one step; without a warm-up there is no offset, and it is the plain cosine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]
"""time in steps (from 0; a fraction if the rate changes within a step) -> learning rate"""


def cosine(
    lr: float, warmup: int, horizon: int, floor: float = 0.0, cos: Callable[[float], float] = math.cos
) -> Schedule:
    """`floor + (lr - floor) * (1 + cos(pi s / horizon)) / 2`, with s = t - warmup - 1 after a warm-up, else s = t.

    Args:
        lr: the peak.
        warmup: steps of the linear warm-up.
        horizon: steps in which the cosine falls to the floor. A run may end earlier, at a rate well above the floor.
        floor: the rate at the horizon and after it.
        cos: the cosine; that of the C library may differ in its last bit between machines.

    Returns:
        The schedule.
    """

    def after(t: float) -> float:
        share = min(max(_since_warmup(t, warmup) / horizon, 0.0), 1.0)
        return floor + (lr - floor) * (1 + cos(math.pi * share)) / 2

    return _warmed(lr, warmup, after)


def multi_step(
    lr: float, warmup: int, steps: int, published: bool = False, power: Callable[[float, float], float] = pow
) -> Schedule:
    """Divides the rate by 10 at 3/8, 5/8 and 7/8 of the run's steps.

    Args:
        lr: the peak.
        warmup: steps of the linear warm-up.
        steps: number of steps of the run.
        published: whether to count as the published code does: milestones `steps // 2.667`, `steps // 1.6` and
            `steps // 1.142` (in floating point), compared with t - warmup - 1 after a warm-up.
        power: (base, exponent) -> power; that of the C library may differ in its last bit between machines.

    Returns:
        The schedule.
    """
    if published:
        rounded = [steps // 2.667, steps // 1.6, steps // 1.142]
        return _warmed(lr, warmup, lambda t: lr * power(0.1, sum(_since_warmup(t, warmup) >= m for m in rounded)))
    milestones = [steps * eighths / 8 for eighths in (3, 5, 7)]
    return _warmed(lr, warmup, lambda t: lr * power(0.1, sum(t >= m for m in milestones)))


def exponential(
    lr: float, warmup: int, decay: float, published: bool = False, power: Callable[[float, float], float] = pow
) -> Schedule:
    """`lr * decay**(t - warmup)` after the warm-up.

    Args:
        lr: the peak.
        warmup: steps of the linear warm-up.
        decay: factor per step.
        published: whether to count as the published code does: one step less after a warm-up,
            `lr * decay**(t - warmup - 1)`.
        power: as in `multi_step`.

    Returns:
        The schedule.
    """
    return _warmed(lr, warmup, lambda t: lr * power(decay, _since_warmup(t, warmup) if published else t - warmup))


def constant(lr: float, warmup: int) -> Schedule:
    """The same rate at every step after the warm-up."""
    return _warmed(lr, warmup, lambda t: lr)


def _warmed(lr: float, warmup: int, after: Schedule) -> Schedule:
    return lambda t: lr * t / warmup if t <= warmup and warmup > 0 else after(t)


def _since_warmup(t: float, warmup: int) -> float:
    """Steps since the warm-up, as the published code counts them."""
    return t - warmup - 1 if warmup > 0 else t
