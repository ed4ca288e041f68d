"""The value without its gradient: the bits that the whole evaluation gives, for less."""

from __future__ import annotations

import dataclasses

import problems
import pytest
import torch
from small_models import MEMBERS, images, member
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, Selection, cross_entropy, squared_error
from noiseless.objective import BlockClip, Objective, SharpnessAware, max_up


def _same(objective, passes):
    found, whole = objective.measure(), objective.evaluate()
    assert (found.loss, found.hits, found.count) == (whole.loss, whole.hits, whole.count)
    assert found.value == whole.value
    assert found.passes == pytest.approx(passes, rel=1e-15)
    return found


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(("block", "norm_block"), [(3, 3), (7, 7), (8, 4), (11, 11)])
def test_a_risk_is_measured_by_forwards_to_the_same_bits(block, norm_block, chunk):
    module, data = problems.convolution(), problems.pictures(11 if block != 8 else 14)
    before = problems.state(module)
    risk = EmpiricalRisk(
        module, cross_entropy, data, block=block, norm_block=norm_block, execution=Execution(chunk=chunk)
    )
    assert _same(risk, 1 / 3).penalty is None
    assert problems.same_bits(before, problems.state(module))
    assert module.training
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("name", MEMBERS)
def test_each_family_in_float32_to_the_same_bits(name, chunk, training):
    net = member(name, 3, 3).train(training)
    x, y = images(10, 3, 8)
    _same(EmpiricalRisk(net, cross_entropy, (x.float(), y), block=4, execution=Execution(chunk=chunk)), 1 / 3)


def test_running_statistics_are_used_in_eval():
    module, data = problems.normed().eval(), problems.points()
    x, y = data
    with torch.no_grad():
        expected = nn.functional.cross_entropy(module(x), y).item()
    assert EmpiricalRisk(module, cross_entropy, data, block=3).measure().loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 2])
def test_keyed_draws_are_those_of_the_evaluation(chunk):
    selection = dataclasses.replace(Selection.of(problems.points()), seed=5, step=2)
    risk = EmpiricalRisk(problems.dropped(), cross_entropy, selection, block=3, execution=Execution(chunk=chunk))
    loss = _same(risk, 1 / 3).loss
    assert risk.at(dataclasses.replace(selection, step=3)).measure().loss != loss


def test_measured_first_a_random_module_is_noticed_too():
    risk = EmpiricalRisk(problems.dropped(), cross_entropy, problems.points(), block=3, execution=Execution(chunk=2))
    loss = risk.measure().loss
    assert loss == risk.evaluate().loss


def test_autocast_regression_and_max_up():
    data = (problems.points()[0].float(), problems.targets().float())
    module = problems.perceptron().float()
    assert _same(EmpiricalRisk(module, squared_error, data, block=3, execution=Execution(chunk=2)), 1 / 3).hits is None
    _same(
        EmpiricalRisk(module, squared_error, data, block=3, execution=Execution(chunk=2), autocast=torch.bfloat16),
        1 / 3,
    )
    largest = max_up(cross_entropy, 2)
    twice = dataclasses.replace(Selection.of(problems.points(12)), examples_per_pass=6)
    _same(EmpiricalRisk(problems.perceptron(), largest, twice, block=4), 2 / 3)


def test_a_part_of_the_data_costs_a_part_of_a_pass():
    selection = dataclasses.replace(
        Selection.of(problems.points()), order=torch.tensor([3, 1]), examples_per_pass=11, first=4
    )
    _same(EmpiricalRisk(problems.perceptron(), cross_entropy, selection, block=1), 2 / 33)


@pytest.mark.parametrize("method", ["forward", "exact"])
@pytest.mark.parametrize(("strength", "full", "published"), [(0.7, 0.0, False), (0.7, 0.4, False), (0.5, 0.0, True)])
def test_a_penalty_takes_one_sweep_of_gradients(method, strength, full, published):
    risk = EmpiricalRisk(problems.normed(), cross_entropy, problems.points(), block=3)
    penalty = GradientPenalty(risk, strength, lr=0.3, full_strength=full, method=method, published=published)
    found = _same(penalty, 1.0)
    assert found.penalty == penalty.evaluate().penalty > 0
    _same(SharpnessAware(BlockClip(penalty, 0.1), 0.1), 1.0)


def test_an_objective_without_a_way_of_its_own_evaluates():
    class Twice(SharpnessAware):
        measure = Objective.measure  # that of every objective

    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points())
    found = Twice(risk, 0.1).measure()
    assert (found.loss, found.penalty, found.passes) == (risk.measure().loss, 0.0, 2.0)


def test_what_is_not_finite_is_said():
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=3)
    with torch.no_grad():
        module[0].weight[0, 0] = float("nan")
    found = risk.measure()
    assert found.loss != found.loss


def test_a_module_that_writes_buffers_is_refused_and_one_that_vmap_does_not_take_named():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3).double()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += 1
            return self.linear(x)

    class Branches(Counts):
        def forward(self, x):
            return self.linear(x) if x.sum() > 0 else -self.linear(x)

    with pytest.raises(ValueError, match="writes its buffer 'seen'"):
        EmpiricalRisk(Counts(), cross_entropy, problems.points(), block=3).measure()
    with pytest.raises(ValueError, match="set chunk to 1"):
        EmpiricalRisk(Branches(), cross_entropy, problems.points(), block=3, execution=Execution(chunk=2)).measure()
