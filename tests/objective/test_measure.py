"""`measure`: the value without its gradient has the bits of `evaluate`, for fewer passes."""

from __future__ import annotations

import dataclasses

import problems
import pytest
import torch
from small_models import MEMBERS, images, member
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, Selection, cross_entropy, squared_error
from noiseless.objective import BlockClip, Objective, SharpnessAware, max_up


def _assert_same_bits(objective, passes):
    measured, evaluated = objective.measure(), objective.evaluate()
    assert (measured.loss, measured.hits, measured.count) == (evaluated.loss, evaluated.hits, evaluated.count)
    assert measured.value == evaluated.value
    assert measured.passes == pytest.approx(passes, rel=1e-15)
    return measured


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(("block", "norm_block"), [(3, 3), (7, 7), (8, 4), (11, 11)])
def test_measure_of_a_risk_gives_the_bits_of_evaluate(block, norm_block, chunk):
    module, data = problems.convolution(), problems.images(11 if block != 8 else 14)
    before = problems.state(module)
    risk = EmpiricalRisk(
        module, cross_entropy, data, block=block, norm_block=norm_block, execution=Execution(chunk=chunk)
    )
    assert _assert_same_bits(risk, 1 / 3).penalty is None
    assert problems.same_bits(before, problems.state(module))
    assert module.training
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("name", MEMBERS)
def test_measure_gives_the_bits_of_evaluate_for_each_family_in_float32(name, chunk, training):
    net = member(name, 3, 3).train(training)
    x, y = images(10, 3, 8)
    _assert_same_bits(
        EmpiricalRisk(net, cross_entropy, (x.float(), y), block=4, execution=Execution(chunk=chunk)), 1 / 3
    )


def test_running_statistics_are_used_in_eval():
    module, data = problems.with_batch_norm().eval(), problems.points()
    x, y = data
    with torch.no_grad():
        expected = nn.functional.cross_entropy(module(x), y).item()
    assert EmpiricalRisk(module, cross_entropy, data, block=3).measure().loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 2])
def test_measure_draws_the_random_numbers_of_evaluate(chunk):
    selection = dataclasses.replace(Selection.of(problems.points()), seed=5, step=2)
    risk = EmpiricalRisk(problems.with_dropout(), cross_entropy, selection, block=3, execution=Execution(chunk=chunk))
    loss = _assert_same_bits(risk, 1 / 3).loss
    assert risk.at(dataclasses.replace(selection, step=3)).measure().loss != loss


def test_a_random_module_that_is_measured_first_gives_the_loss_of_evaluate():
    risk = EmpiricalRisk(
        problems.with_dropout(), cross_entropy, problems.points(), block=3, execution=Execution(chunk=2)
    )
    loss = risk.measure().loss
    assert loss == risk.evaluate().loss


def test_measure_of_a_regression_under_autocast_and_with_max_up():
    data = (problems.points()[0].float(), problems.targets().float())
    module = problems.perceptron().float()
    assert (
        _assert_same_bits(EmpiricalRisk(module, squared_error, data, block=3, execution=Execution(chunk=2)), 1 / 3).hits
        is None
    )
    _assert_same_bits(
        EmpiricalRisk(module, squared_error, data, block=3, execution=Execution(chunk=2), autocast=torch.bfloat16),
        1 / 3,
    )
    largest = max_up(cross_entropy, 2)
    twice = dataclasses.replace(Selection.of(problems.points(12)), examples_per_pass=6)
    _assert_same_bits(EmpiricalRisk(problems.perceptron(), largest, twice, block=4), 2 / 3)


def test_a_part_of_the_data_costs_a_part_of_a_pass():
    selection = dataclasses.replace(
        Selection.of(problems.points()), order=torch.tensor([3, 1]), examples_per_pass=11, first=4
    )
    _assert_same_bits(EmpiricalRisk(problems.perceptron(), cross_entropy, selection, block=1), 2 / 33)


@pytest.mark.parametrize("method", ["forward", "exact"])
@pytest.mark.parametrize(("strength", "full", "published"), [(0.7, 0.0, False), (0.7, 0.4, False), (0.5, 0.0, True)])
def test_measure_of_a_penalty_costs_one_pass(method, strength, full, published):
    risk = EmpiricalRisk(problems.with_batch_norm(), cross_entropy, problems.points(), block=3)
    penalty = GradientPenalty(risk, strength, lr=0.3, full_strength=full, method=method, published=published)
    evaluation = _assert_same_bits(penalty, 1.0)
    assert evaluation.penalty == penalty.evaluate().penalty > 0
    _assert_same_bits(SharpnessAware(BlockClip(penalty, 0.1), 0.1), 1.0)


def test_an_objective_without_its_own_measure_evaluates():
    class Twice(SharpnessAware):
        measure = Objective.measure  # that of every objective

    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points())
    evaluation = Twice(risk, 0.1).measure()
    assert (evaluation.loss, evaluation.penalty, evaluation.passes) == (risk.measure().loss, 0.0, 2.0)


def test_a_nan_parameter_gives_a_nan_loss():
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=3)
    with torch.no_grad():
        module[0].weight[0, 0] = float("nan")
    evaluation = risk.measure()
    assert evaluation.loss != evaluation.loss


def test_modules_that_write_buffers_are_refused_and_those_that_branch_on_data_are_right():
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
    branches = EmpiricalRisk(Branches(), cross_entropy, problems.points(), block=3, execution=Execution(chunk=2))
    with pytest.warns(
        UserWarning, match=r"one at a time.* branches on a value.*test_measure\.py, line \d+\).*torch\.where"
    ):
        measured = branches.measure()
    assert measured.loss == branches.evaluate().loss


@pytest.mark.parametrize("encode", [lambda y: nn.functional.one_hot(y, 4), lambda y: torch.eye(4)[y]])
def test_one_hot_stops_vmap_and_the_warning_has_what_does_not(encode, recwarn):
    x, y = torch.randn(12, 3), torch.randint(4, (12,))

    def loss(output, target):
        return (output - encode(target)).square().sum(1)

    risk = EmpiricalRisk(nn.Linear(3, 4), loss, (x, y), block=3, execution=Execution(chunk=2))
    risk.evaluate()
    texts = [str(warning.message) for warning in recwarn if "one at a time" in str(warning.message)]
    assert len(texts) == (1 if "one_hot" in encode.__code__.co_names else 0)
    assert all("torch.eye(classes)[target] in place of one_hot" in text for text in texts)
