"""Landscapes of functions known in closed form, parameters that are restored, and points that are not finite."""

from __future__ import annotations

import copy
import math

import oracles
import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, GradientPenalty, cross_entropy, squared_error
from noiseless.analysis import LossSurface, loss_landscape, random_direction
from noiseless.analysis.landscape import spread
from noiseless.errors import ModuleError, UnknownNameError


def quadratic():
    """A linear model with squared error: `L(theta + v) = L + g.v + v.H v / 2` without a remainder."""
    data = (problems.points()[0], problems.targets(width=2))
    return EmpiricalRisk(problems.fill(nn.Linear(3, 2)), squared_error, data, block=3)


def _directions(risk, count, seed=0):
    return torch.stack([random_direction(risk.space, seed, number, "layer") for number in range(count)])


def test_a_quadratic_has_the_landscape_that_gradient_and_hessian_give():
    risk = quadratic()
    d1, d2 = directions = _directions(risk, 2)
    here = risk.evaluate()
    h11, h12, h22 = (float(risk.hvp(a[None])[0] @ b) for a, b in ((d1, d1), (d1, d2), (d2, d2)))
    g1, g2 = float(here.gradient @ d1), float(here.gradient @ d2)
    x, y = spread(-1.0, 1.0, 5), spread(-2.0, 0.5, 4)
    landscape = loss_landscape(risk, directions, x, y)
    assert landscape.loss.shape == (5, 4)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            expected = here.loss + a * g1 + b * g2 + (a * a * h11 + 2 * a * b * h12 + b * b * h22) / 2
            assert landscape.loss[i, j].item() == pytest.approx(expected, rel=1e-12)
    assert landscape.accuracy.isnan().all()  # no classification
    assert landscape.penalised.isnan().all()  # no penalty
    assert landscape.passes == pytest.approx(20 / 3)


@pytest.mark.parametrize("batch_norm", ["block", "running"])
def test_each_point_has_the_values_of_a_net_with_its_parameters(batch_norm):
    module, data = problems.with_batch_norm(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, data, block=3)
    penalty = GradientPenalty(risk, 0.5, lr=0.4)
    directions = _directions(risk, 1, seed=4)
    points = spread(-0.8, 0.8, 5)
    plain = loss_landscape(risk, directions, points, batch_norm=batch_norm)
    landscape = loss_landscape(penalty, directions, points, batch_norm=batch_norm)
    start = oracles.theta(module)
    for k, a in enumerate(points):
        net = copy.deepcopy(module)
        nn.utils.vector_to_parameters(start + a * directions[0], net.parameters())
        if batch_norm == "block":
            net = oracles.ghosted(net, 3)
        else:
            net.eval()
        naive = oracles.block_loop(net, cross_entropy, data, 3)
        assert landscape.loss[k].item() == pytest.approx(naive.loss, rel=1e-11)
        assert landscape.accuracy[k].item() == naive.hits / len(data[0])
        weights = torch.tensor([3.0, 3.0, 3.0, 2.0], dtype=torch.float64) / 11
        norms = float((naive.block_square_norms * weights).sum())
        assert landscape.penalised[k].item() == pytest.approx(naive.loss + 0.4 / 8 * 0.5 * norms, rel=1e-11)
    assert torch.equal(plain.loss, landscape.loss)
    assert landscape.passes == 5
    assert plain.passes == pytest.approx(5 / 3)


@pytest.mark.parametrize("batch_norm", ["block", "running"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_buffers_and_modes_are_restored(batch_norm, dtype):
    module = problems.with_batch_norm().to(dtype)
    module[1].eval()  # a mixture of modes
    modes, before = [m.training for m in module.modules()], problems.state(module)
    x, y = problems.points()
    risk = EmpiricalRisk(module, cross_entropy, (x.to(dtype), y), block=3)
    loss_landscape(risk, _directions(risk, 1), spread(-1, 1, 3), batch_norm=batch_norm)
    assert problems.same_bits(before, problems.state(module))
    assert [m.training for m in module.modules()] == modes


def test_the_parameters_are_restored_where_the_model_fails():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = problems.fill(nn.Linear(3, 3))

        def forward(self, x):
            if self.linear.weight.abs().max() > 10:
                raise ArithmeticError("too large")
            return self.linear(x)

    module = Fails().eval()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=3)
    before = problems.state(module)
    surface = LossSurface(risk, torch.ones(1, len(risk.space)))
    with pytest.raises(ModuleError, match="too large"):
        surface.at(1000.0)
    assert problems.same_bits(before, problems.state(module))
    assert not module.training
    assert surface.at(0.0).loss == risk.measure().loss


def test_float32_parameters_reach_the_other_state_exactly():
    module = problems.perceptron().float()
    x, y = problems.points()
    risk = EmpiricalRisk(module, cross_entropy, (x.float(), y))
    start, other = risk.space.theta.clone(), problems.fill(problems.perceptron(), seed=9).float()
    end = oracles.theta(other)
    surface = LossSurface(risk, (end.double() - start.double())[None])
    risk.space.theta.copy_(end)
    expected = risk.measure().loss
    risk.space.theta.copy_(start)
    assert surface.at(1.0).loss == expected
    assert surface.at(0.0).loss == risk.measure().loss


def test_points_that_are_not_finite_are_nan_and_the_others_are_not():
    # sqrt of a parameter: not a number where it is negative
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            return x * self.w.sqrt()

    risk = EmpiricalRisk(Root(), cross_entropy, problems.points(), block=3)
    penalty = GradientPenalty(risk, 0.5, lr=0.4)
    landscape = loss_landscape(penalty, torch.ones(1, 3), [-2.0, -1.0, 0.0, 1.0])
    assert landscape.loss.isnan().tolist() == [True, False, False, False]
    assert landscape.accuracy.isnan().tolist() == [True, False, False, False]
    # at w = 0 the root has an infinite slope: the loss is finite, its gradient is not
    assert landscape.penalised.isnan().tolist() == [True, True, False, False]
    point = LossSurface(risk, torch.ones(1, 3)).at(-2.0)
    assert (point.loss, point.accuracy) == (None, None)


def test_spread_has_its_ends_and_the_middle_exactly():
    assert spread(-0.3, 0.3, 7)[3] == 0.0
    assert spread(-0.5, 1.5, 21)[5] == 0.0
    assert spread(-0.5, 1.5, 21)[15] == 1.0
    assert spread(-0.1, 0.7, 9)[::8] == [-0.1, 0.7]


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (torch.ones(1, 7), r"has shape \[8\], not \[7\]: is it of another model"),
        (torch.ones(8), r"takes directions \[1, P\] or \[2, P\], not \[8\]"),
        (torch.ones(3, 8), r"takes directions \[1, P\] or \[2, P\], not \[3, 8\]"),
        (torch.zeros(1, 8), "a direction is 0 in each element"),
        (torch.full((1, 8), math.nan), "a direction holds NaN"),
        (torch.stack([torch.ones(8), torch.full((8,), -3.0)]), "parallel: they span no plane"),
    ],
)
def test_directions_that_span_no_landscape_are_refused(directions, message):
    with pytest.raises(ValueError, match=message):
        LossSurface(quadratic(), directions)


def test_points_that_make_no_grid_are_refused():
    surface = LossSurface(quadratic(), torch.ones(1, 8))
    for axis, message in (
        ([0.0], "at least 2 points along each axis, not 1"),
        ([0.0, math.inf], "must be finite and rise"),
        ([0.0, 0.0], "must be finite and rise"),
        ([1.0, 0.5, 0.25], "must be finite and rise, not 1.0 ... 0.25"),
    ):
        with pytest.raises(ValueError, match=message):
            loss_landscape(quadratic(), torch.ones(1, 8), axis)
    with pytest.raises(ValueError, match="at least 2 points"):
        spread(-1, 1, 1)
    with pytest.raises(ValueError, match="must be finite and rise"):
        spread(1, 1, 5)
    with pytest.raises(ValueError, match="landscape has 1 directions, and 2 axes"):
        loss_landscape(quadratic(), torch.ones(1, 8), [0.0, 1.0], [0.0, 1.0])
    for coordinates in ((), (0.0, 1.0), (math.nan,)):
        with pytest.raises(ValueError, match="has 1 finite numbers"):
            surface.at(*coordinates)
    with pytest.raises(UnknownNameError, match="unknown batch-norm mode 'train'"):
        LossSurface(quadratic(), torch.ones(1, 8), "train").at(0.0)  # type: ignore[arg-type]
