"""Flatness of a quadratic, whose mean increase is known, and when the measurement stops."""

from __future__ import annotations

import math
import statistics

import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, GradientPenalty, cross_entropy, squared_error
from noiseless.analysis import average_flatness, random_direction


@pytest.fixture
def minimum():
    """A linear regression at its minimum."""
    x, y = problems.points()[0], problems.targets(width=2)
    risk = EmpiricalRisk(problems.fill(nn.Linear(3, 2)), squared_error, (x, y), block=3)
    fitted = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1), y).solution
    with torch.no_grad():
        risk.space.module.weight.copy_(fitted[:3].T)
        risk.space.module.bias.copy_(fitted[3])
    return risk


def test_a_quadratic_rises_by_the_trace_of_its_hessian(minimum):
    # u = ||theta|| n / ||n||, n normal in P dimensions: E[u u^T] = ||theta||**2 I / P, so that
    # E[L(theta + r u) - L(theta)] = r**2 E[u^T H u] / 2 = r**2 ||theta||**2 tr(H) / (2 P)
    size, radius = len(minimum.space), 0.7
    trace = torch.trace(minimum.hvp(torch.eye(size, dtype=torch.float64))).item()
    expected = radius**2 * minimum.space.theta.square().sum().item() * trace / (2 * size)
    flatness = average_flatness(minimum, radius, "none", tolerance=0.0, most=300)
    assert flatness.stopped == "bound"
    assert len(flatness.increases) == 300
    # 4 standard errors: seen by chance once in 16,000 seeds, and this seed is fixed
    assert abs(flatness.mean - expected) < 4 * flatness.standard_error
    assert flatness.standard_error < 0.05 * expected
    assert flatness.passes == pytest.approx(301 / 3)


@pytest.mark.parametrize("how", ["filter", "layer", "weight", "none"])
def test_increases_mean_and_error_equal_a_plain_loop(minimum, how):
    flatness = average_flatness(minimum, 0.3, how, seed=2, tolerance=0.0, most=9)
    here, theta = minimum.measure().loss, minimum.space.theta.clone()
    expected = []
    for number in range(9):
        minimum.space.theta.copy_(theta + 0.3 * random_direction(minimum.space, 2, number, how))
        expected.append(minimum.evaluate().loss - here)
        minimum.space.theta.copy_(theta)
    assert flatness.increases == pytest.approx(expected, rel=1e-9, abs=1e-14)  # a difference of numbers near 1
    assert flatness.mean == pytest.approx(statistics.fmean(expected), rel=1e-9)
    assert flatness.standard_error == pytest.approx(statistics.stdev(expected) / 3, rel=1e-8)


def test_it_stops_where_the_error_is_small_enough(minimum):
    theta = minimum.space.theta.clone()
    reported = []
    flatness = average_flatness(minimum, 0.5, tolerance=0.2, most=200, on_direction=reported.append)
    assert flatness.stopped == "converged"
    assert reported == flatness.increases
    n = len(flatness.increases)
    assert 4 <= n < 200
    errors = [
        statistics.stdev(reported[:k]) / math.sqrt(k) / abs(statistics.fmean(reported[:k])) for k in range(4, n + 1)
    ]
    assert errors[-1] <= 0.2
    assert all(error > 0.2 for error in errors[:-1])
    # the directions are those of the seed: a tighter tolerance uses the same ones, and more
    tighter = average_flatness(minimum, 0.5, tolerance=0.1, most=200)
    assert tighter.increases[:n] == flatness.increases
    assert len(tighter.increases) > n
    assert torch.equal(minimum.space.theta, theta)


def test_the_value_of_a_penalised_objective_includes_the_penalty(minimum):
    penalty = GradientPenalty(minimum, 0.5, lr=0.4)
    flatness = average_flatness(penalty, 0.3, "layer", tolerance=0.0, most=4)
    here, theta = penalty.evaluate().value, minimum.space.theta.clone()
    for number, increase in enumerate(flatness.increases):
        minimum.space.theta.copy_(theta + 0.3 * random_direction(minimum.space, 0, number, "layer"))
        assert increase == pytest.approx(penalty.evaluate().value - here, rel=1e-9)
        minimum.space.theta.copy_(theta)
    assert flatness.passes == 5


@pytest.mark.parametrize("batch_norm", ["block", "running"])
def test_the_value_at_the_point_has_the_batch_norm_mode_of_the_others(batch_norm):
    module, (x, y) = problems.with_batch_norm(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=3)
    # along directions of length 1e-7 the loss hardly moves, if both are evaluated in one mode; the modes differ by 3e-3
    flatness = average_flatness(risk, 1e-7, batch_norm=batch_norm, most=4)
    assert max(map(abs, flatness.increases)) < 1e-5
    assert abs(risk.measure().loss - EmpiricalRisk(module.eval(), cross_entropy, (x, y), block=3).measure().loss) > 1e-3


def test_a_value_that_is_not_finite_stops_it_without_a_mean():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3, 1, dtype=torch.float64))

        def forward(self, x):
            return x @ self.w.sqrt() * torch.ones(1, 3, dtype=x.dtype)

    risk = EmpiricalRisk(Root(), cross_entropy, problems.points())
    flatness = average_flatness(risk, 100.0)
    assert (flatness.mean, flatness.standard_error, flatness.stopped) == (None, None, "not finite")
    assert flatness.increases[-1] is None
    assert None not in flatness.increases[:-1]
    with torch.no_grad():
        risk.space.module.w.fill_(-1.0)
    with pytest.raises(ValueError, match="the loss is nan at the point itself"):
        average_flatness(risk, 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 0.0}, "radius of flatness must be a positive, finite number, not 0.0"),
        ({"radius": math.nan}, "radius of flatness must be a positive, finite number, not nan"),
        ({"tolerance": -0.1}, "tolerance of flatness must be a finite number of at least 0, not -0.1"),
        ({"most": 3}, "at least 4 directions, not 3"),
    ],
)
def test_numbers_out_of_range_are_refused(minimum, changes, message):
    with pytest.raises(ValueError, match=message):
        average_flatness(minimum, **({"radius": 0.1} | changes))
