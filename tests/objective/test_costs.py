"""Costs of an evaluation: passes and sweeps of objectives around objectives."""

from __future__ import annotations

import problems
import pytest

from noiseless import EmpiricalRisk, GradientPenalty, SharpnessAware, cross_entropy
from noiseless.objective.base import Wrapper


@pytest.mark.parametrize(("full", "passes", "sweeps"), [(0.0, 2, 1), (0.3, 3, 2)])
def test_a_penalty_on_the_full_gradient_takes_a_sweep_more(full, passes, sweeps):
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points(), block=3)
    penalty = GradientPenalty(risk, 0.5, lr=0.1, method="forward", full_strength=full)
    assert (risk.passes, risk.sweeps) == (1, 1)
    assert (penalty.passes, penalty.sweeps) == (passes, sweeps)
    ahead = SharpnessAware(penalty, 0.05)
    assert (ahead.passes, ahead.sweeps) == (2 * passes, 2 * sweeps)


def test_a_wrapper_evaluates_what_it_wraps_once_unless_it_says_otherwise():
    assert Wrapper.evaluations == 1
