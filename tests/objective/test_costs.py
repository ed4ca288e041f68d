"""Costs of an evaluation: passes and sweeps of objectives around objectives."""

from __future__ import annotations

import problems
import pytest
from torch import nn

from noiseless import EmpiricalRisk, GradientPenalty, SharpnessAware, cross_entropy
from noiseless.objective.base import Wrapper
from noiseless.objective.workers import Alone


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


@pytest.mark.parametrize(("method", "visits"), [("forward", 2), ("central", 3), ("exact", 1)])
def test_in_the_published_arithmetic_probes_visit_batch_norm_too(method, visits):
    module = problems.with_batch_norm()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=4, statistics="ema")
    for published, expected in ((False, 1), (True, visits)):
        objective = GradientPenalty(risk, 0.5, lr=0.1, method=method, published=published)
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]
        before = [int(norm.num_batches_tracked) for norm in norms]
        objective.accept(objective.evaluate())
        assert objective.visits == expected
        assert [int(norm.num_batches_tracked) - n for norm, n in zip(norms, before, strict=True)] == [
            expected * len(risk.blocks)
        ] * len(norms)


def test_one_process_alone():
    assert (Alone().rank, Alone().count) == (0, 1)
