"""The noise of an objective that is drawn at random: the spread of its gradient over several draws at one point."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from noiseless.analysis.moments import Moments, moments
from noiseless.objective import Objective
from noiseless.objective.base import square_norms


def gradient_draws(objectives: Iterable[Objective]) -> Moments:
    """Measures how much the gradient differs between draws of an objective, at the parameters that they share.

    The draws may be mini-batches, other cuts into norm blocks, or other augmentations. With g_m the gradient of draw m
    of M, and g their mean,

        S = sum_m ||g_m - g||^2 / (M - 1),    |G|^2 = ||g||^2 - S / M,

    which are unbiased for the trace of the covariance of one draw and for the squared norm of the expected gradient, if
    the draws are independent and of one distribution. These are the formulas of `gradient_noise` with one draw in the
    place of a block of one example, so errors are those of the jackknife over draws (`Moments`).

    Args:
        objectives: the draws, of one module in one state. Two draws or more; an error needs three.

    Returns:
        The moments: `covariance_trace` is S, `signal` is |G|^2, and a noise scale S / |G|^2 counts draws. Draws with
        the same bits have S = 0 exactly. The gradients are float64 `[M, P]` in memory; the cost is that of M
        evaluations.

    Raises:
        ValueError: for fewer than two draws, or if a gradient is not finite.
    """
    gradients = [objective.evaluate().gradient.double() for objective in objectives]
    if len(gradients) < 2:
        raise ValueError(f"the spread of draws needs two or more, not {len(gradients)}")
    stacked = torch.stack(gradients)
    if not bool(stacked.isfinite().all()):
        raise ValueError("the gradient of a draw is not finite, so its spread cannot be measured: choose another state")
    shifted = stacked - stacked[0]  # equal draws give exactly 0
    d = shifted - shifted.mean(0)
    g = stacked[0] + shifted.mean(0)
    spreads = torch.tensor([float(square_norms(row)) for row in d], dtype=torch.float64)
    along = torch.tensor([float((row * g).sum()) for row in d], dtype=torch.float64)
    return moments(float(square_norms(g)), float(spreads.sum()), spreads, along, torch.ones_like(spreads))
