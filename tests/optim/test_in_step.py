"""What a step fills in: the number that keys random numbers, and the learning rate that scales a penalty."""

from __future__ import annotations

import copy

import oracles
import problems
import pytest
import torch

from noiseless import EmpiricalRisk, GradientPenalty, Selection, SharpnessAware, cross_entropy, take_step
from noiseless.objective import BlockClip, Objective, TensorExamples, risk_of
from noiseless.optim import DampedLBFGS, Muon, Searched, StrongWolfeSearch, additive_noise


def risk(module=None, step=None):
    module = module or problems.with_dropout()
    return EmpiricalRisk(module, cross_entropy, Selection(TensorExamples(problems.points()), step=step), block=4)


def gradient_at(objective: Objective, step: int) -> torch.Tensor:
    """The oracle: the gradient of the objective whose selection says the step."""
    return objective.over(risk(risk_of(objective).module, step)).evaluate().gradient


def gradients(objective, numbers):
    """Of steps that move nothing, as their rate is 0."""
    optimizer = torch.optim.SGD(objective.space.parameters, lr=0.0)
    return [take_step(optimizer, objective, number=number).evaluation.gradient for number in numbers]


WRAPPED = {
    "risk": lambda risk: risk,
    "penalty": lambda risk: GradientPenalty(risk, 0.5, lr=0.1),
    "block clip": lambda risk: BlockClip(GradientPenalty(risk, 0.5, lr=0.1), 0.1),
    "sharpness-aware": lambda risk: SharpnessAware(BlockClip(risk, 0.1), 0.05),
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_dropout_has_another_mask_at_each_step_by_default(wrap):
    objective = WRAPPED[wrap](risk())
    counted = gradients(objective, [None] * 3)
    for step, gradient in enumerate(counted):
        assert torch.equal(gradient, gradient_at(objective, step))
    assert not torch.allclose(counted[0], counted[1])
    assert not torch.allclose(counted[1], counted[2])


def test_a_number_is_the_steps_and_one_in_the_selection_comes_first():
    seven, again, zero, one = gradients(risk(), [7, 7, None, None])  # numbers that are given are not counted
    assert torch.equal(seven, gradient_at(risk(), 7))
    assert torch.equal(again, seven)
    assert torch.equal(zero, gradient_at(risk(), 0))
    assert torch.equal(one, gradient_at(risk(), 1))
    fixed = gradients(risk(step=3), [None, None, 7])
    assert all(torch.equal(gradient, gradient_at(risk(), 3)) for gradient in fixed)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "AdamW": lambda p: torch.optim.AdamW([{"params": p[:2]}, {"params": p[2:], "weight_decay": 0.0}], lr=0.01),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "Muon": lambda p: Muon(p, lr=0.01),
    "searched": lambda p: Searched(DampedLBFGS(p), StrongWolfeSearch()),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_optimizer_goes_on_with_the_next_number(name, tmp_path):
    modules, make = [problems.with_dropout(), problems.with_dropout()], OPTIMIZERS[name]
    whole, first = (make(list(m.parameters())) for m in modules)
    for _ in range(4):
        take_step(whole, risk(modules[0]))
    for _ in range(2):
        take_step(first, risk(modules[1]))
    torch.save(first.state_dict(), tmp_path / "optimizer.pt")
    second = make(list(modules[1].parameters()))
    second.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for _ in range(2):
        take_step(second, risk(modules[1]))
    assert torch.equal(oracles.theta(modules[0]), oracles.theta(modules[1]))


def test_a_step_that_is_not_finite_does_not_count():
    module, scale = problems.with_dropout(), torch.tensor(1.0)
    objective = EmpiricalRisk(module, lambda o, y: cross_entropy(o, y) / scale, problems.points())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    first = take_step(optimizer, objective)
    scale.zero_()
    assert not take_step(optimizer, objective).finite
    scale.fill_(1.0)
    second = take_step(optimizer, objective)
    assert torch.equal(second.evaluation.gradient, gradients(objective, [1])[0])
    assert not torch.allclose(second.evaluation.gradient, first.evaluation.gradient)


def test_noise_has_another_draw_at_each_step_by_default():
    module = problems.perceptron()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    zero = EmpiricalRisk(module, lambda o, y: 0.0 * cross_entropy(o, y), problems.points())
    points = [oracles.theta(module)]
    for _ in range(2):
        take_step(optimizer, zero, additive_noise(0.1, seed=2))
        points.append(oracles.theta(module))
    one, other = points[1] - points[0], points[2] - points[1]
    assert one.abs().min() > 0
    assert not torch.allclose(one, other)


def test_a_closure_has_the_random_numbers_of_a_step():
    objective = risk()
    for step in (0, 4):
        objective.in_step(step).closure()()
        gradient = torch.cat([p.grad.flatten() for p in objective.space.parameters])
        assert torch.equal(gradient, gradient_at(objective, step))


def penalised(risk, lr, wrap):
    penalty = GradientPenalty(risk, 0.5, full_strength=0.2, lr=lr)
    return {"bare": penalty, "wrapped": SharpnessAware(BlockClip(penalty, 0.3), 0.05)}[wrap]


@pytest.mark.parametrize("wrap", ["bare", "wrapped"])
def test_a_penalty_without_a_rate_follows_the_optimizers(wrap):
    module = problems.perceptron()
    twin = copy.deepcopy(module)
    optimizer, reference = (torch.optim.SGD(m.parameters(), lr=0.3, momentum=0.9) for m in (module, twin))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    following = penalised(risk(module), None, wrap)
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        reference.param_groups[0]["lr"] = rates[-1]
        step = take_step(optimizer, following)
        expected = take_step(reference, penalised(risk(twin), rates[-1], wrap))
        assert step.evaluation.value == expected.evaluation.value
        assert step.evaluation.penalty > 0
        assert torch.equal(oracles.theta(module), oracles.theta(twin))
        schedule.step()
    assert rates == pytest.approx([0.3, 0.15, 0.075])


def test_groups_of_one_rate_give_it_and_others_are_refused():
    module = problems.perceptron()
    penalty = GradientPenalty(risk(module), 0.5)
    first, second = list(module[0].parameters()), list(module[2].parameters())
    stranger = {"params": [torch.zeros(1, requires_grad=True)], "lr": 5.0}
    same = torch.optim.SGD([{"params": first}, {"params": second}, stranger], lr=0.2)
    before = oracles.theta(module)
    expected = GradientPenalty(risk(copy.deepcopy(module)), 0.5, lr=0.2).evaluate()
    assert take_step(same, penalty).evaluation.penalty == expected.penalty
    moved = oracles.theta(module)
    assert not torch.equal(moved, before)
    several = torch.optim.SGD([{"params": first, "lr": 0.1}, {"params": second}], lr=0.2)
    with pytest.raises(ValueError, match=r"groups have several \(0\.1, 0\.2\): give it one, GradientPenalty"):
        take_step(several, SharpnessAware(penalty, 0.1))
    without = torch.optim.SGD(module.parameters(), lr=0.2)
    del without.param_groups[0]["lr"]
    with pytest.raises(ValueError, match="no learning rate of its own, and the optimizer's groups have none"):
        take_step(without, penalty)
    assert torch.equal(oracles.theta(module), moved)
    take_step(several, GradientPenalty(risk(module), 0.5, lr=0.2))  # it has its own
    take_step(several, risk(module))


@pytest.mark.parametrize("method", ["forward", "exact"])
def test_a_penalty_without_a_rate_is_evaluated_only_in_a_step(method):
    penalty = GradientPenalty(risk(problems.perceptron()), 0.5, method=method)
    V = torch.ones(1, len(penalty.space)).double()
    for objective in (penalty, BlockClip(penalty, 1.0), SharpnessAware(penalty, 0.1)):
        asked = (objective.evaluate, objective.measure, objective.closure(), lambda o=objective: o.hvp(V))
        for ask in asked:
            with pytest.raises(ValueError, match=r"no learning rate outside a step.*Penalty\(\.\.\., lr=0\.1\)"):
                ask()
        assert objective.needs_rate
        in_step = objective.in_step(0, 0.1)
        assert not in_step.needs_rate
        expected = objective.over(risk(penalty.risk.module))
        assert expected.needs_rate  # a new risk has no rate
        assert in_step.evaluate().penalty == GradientPenalty(penalty.risk, 0.5, lr=0.1, method=method).measure().penalty


def test_a_rate_that_is_no_number_is_refused():
    for lr in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="penalty's lr must be a finite number"):
            GradientPenalty(risk(), 0.5, lr=lr)
