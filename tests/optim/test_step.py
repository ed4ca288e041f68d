"""One step: torch's optimizers with closures, accepted statistics, and refused line searches."""

from __future__ import annotations

import copy

import oracles
import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, clip_norm, cross_entropy, squared_error, take_step
from noiseless.objective import BlockClip
from noiseless.optim import Transform, additive_noise, chain, make_optimizer, refuse_line_search


def _least_squares():
    """A regression `[20, 3]` -> `[20, 1]`, and its solution in closed form: weights, then the constant."""
    x, y = problems.targets(20, 3, seed=5), problems.targets(20, 1, seed=6)
    solution = torch.linalg.lstsq(torch.cat((x, torch.ones(20, 1).double()), 1), y).solution.flatten()
    return problems.fill(nn.Linear(3, 1)), (x, y), solution


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_with_the_objectives_closure_solves_least_squares(search):
    module, data, solution = _least_squares()
    risk = EmpiricalRisk(module, squared_error, data, block=6, execution=Execution(chunk=2))
    optimizer = torch.optim.LBFGS(
        module.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-24, line_search_fn=search
    )
    optimizer.step(risk.closure())
    # It stops where g . H**-1 g < 1e-24, which is the squared distance times a curvature of about 1; values compare to
    # 2**-53, which a search cannot distinguish below distances of 1e-8 (their squares are 1e-16)
    torch.testing.assert_close(risk.space.theta, solution, rtol=0, atol=1e-8)


def test_take_step_with_lbfgs_solves_least_squares():
    module, data, solution = _least_squares()
    risk = EmpiricalRisk(module, squared_error, data, block=7)
    optimizer = make_optimizer("lbfgs", module.parameters(), line_search_fn="strong_wolfe", tolerance_grad=1e-12,
        tolerance_change=1e-24)  # fmt: skip
    start = risk.evaluate()
    first = take_step(optimizer, risk)
    assert first.evaluation.loss == start.loss
    assert first.passes > 1
    assert first.passes == optimizer.state[module.weight]["func_evals"]
    for _ in range(5):
        take_step(optimizer, risk)
    torch.testing.assert_close(risk.space.theta, solution, rtol=0, atol=1e-8)  # see above


@pytest.mark.parametrize(
    ("name", "settings"),
    [("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}), ("AdamW", {"lr": 0.1})],
)
def test_steps_are_those_of_a_plain_loop(name, settings):
    module, data = problems.perceptron(), problems.points()
    plain = copy.deepcopy(module)
    optimizer, reference = (make_optimizer(name, m.parameters(), **settings) for m in (module, plain))
    risk = EmpiricalRisk(module, cross_entropy, data, block=3)
    for number in range(4):
        step = take_step(optimizer, risk, number=number)
        reference.zero_grad()
        loss = nn.functional.cross_entropy(plain(data[0]), data[1])
        loss.backward()
        reference.step()
        assert step.evaluation.loss == pytest.approx(loss.item(), rel=1e-11)
        assert (step.passes, step.finite, step.clipped) == (1.0, True, False)
    # Adam divides by gradients' sizes, which lifts rounding where they are small
    torch.testing.assert_close(oracles.theta(module), oracles.theta(plain), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["SGD", "LBFGS"])
@pytest.mark.parametrize("statistics", ["average", "ema"])
def test_accepted_statistics_are_those_of_the_first_evaluation(name, statistics):
    module, data = problems.with_batch_norm(), problems.points()
    twin = copy.deepcopy(module)
    reference = EmpiricalRisk(twin, cross_entropy, data, block=3, statistics=statistics)
    reference.accept(reference.evaluate())
    risk = EmpiricalRisk(module, cross_entropy, data, block=3, statistics=statistics)
    step = take_step(make_optimizer(name, module.parameters(), lr=0.1), risk)
    assert step.passes == 1 if name == "SGD" else step.passes > 2
    assert not torch.equal(oracles.theta(module), oracles.theta(twin))
    for (key, buffer), expected in zip(module.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(buffer, expected), key


def test_each_evaluation_of_a_step_starts_from_the_transforms_state_before_it():
    module, data = problems.perceptron(), problems.points()
    counts = []

    def update(gradient, state, theta, step):
        counts.append(state["asked"])
        return gradient, {"asked": state["asked"] + 1}

    counting = Transform("counting", lambda theta: {"asked": 0}, update)
    optimizer, risk = make_optimizer("LBFGS", module.parameters(), lr=0.1), EmpiricalRisk(module, cross_entropy, data)
    first = take_step(optimizer, risk, counting)
    evaluations = len(counts)
    assert evaluations > 1
    second = take_step(optimizer, risk, counting, first.transformed)
    assert counts == [0] * evaluations + [1] * (len(counts) - evaluations)
    assert second.transformed == {"asked": 2}


def test_a_transform_acts_between_gradient_and_optimizer():
    module, data = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, data)
    before = oracles.theta(module)
    _, g = oracles.one_batch(module, cross_entropy, data)
    transform = chain(clip_norm(0.01), clip_norm(100.0))
    step = take_step(torch.optim.SGD(module.parameters(), lr=1.0), risk, transform)
    change = oracles.theta(module) - before
    torch.testing.assert_close(change, -g * (0.01 / (g.norm() + 1e-6)), **oracles.ROUNDING)
    assert step.clipped
    torch.testing.assert_close(step.evaluation.gradient, g, **oracles.ROUNDING)  # before clipping


def test_noise_is_keyed_by_the_number_of_the_step():
    results = []
    for number in (0, 0, 1):
        module = problems.perceptron()
        risk = EmpiricalRisk(module, cross_entropy, problems.points())
        take_step(torch.optim.SGD(module.parameters(), lr=1.0), risk, additive_noise(0.1, seed=2), number=number)
        results.append(oracles.theta(module))
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[0], results[2])


def test_a_value_that_is_not_finite_moves_nothing():
    module = problems.with_batch_norm()
    risk = EmpiricalRisk(module, lambda o, y: cross_entropy(o, y) / 0.0, problems.points(), block=3)
    before = problems.state(module)
    step = take_step(torch.optim.SGD(module.parameters(), lr=1.0), risk)
    assert not step.finite
    assert step.passes == 1.0
    assert problems.same_bits(problems.state(module), before)


def test_a_gradient_that_is_not_finite_moves_nothing():
    # sqrt at 0: value 0, slope infinite
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(module.weight)
    risk = EmpiricalRisk(module, lambda o, y: o.sqrt(), [torch.ones(2, 1).double(), torch.ones(2, 1).double()])
    assert not take_step(torch.optim.SGD(module.parameters(), lr=1.0), risk).finite
    assert module.weight.item() == 0.0


def test_an_optimizer_of_another_module_is_refused():
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, problems.points())
    for others in (copy.deepcopy(module), problems.perceptron()):
        optimizer = torch.optim.SGD(others.parameters(), lr=0.1)
        with pytest.raises(ValueError, match="the optimizer holds none of the objective's parameters"):
            take_step(optimizer, risk)
    before = [p.detach().clone() for p in module.parameters()]
    take_step(torch.optim.SGD(module[2].parameters(), lr=0.1), risk)  # some of them: the others stay
    moved = [not torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True)]
    assert moved == [False, False, True, True]


def test_a_line_search_needs_an_exact_objective():
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, problems.points())
    search = torch.optim.LBFGS(module.parameters(), line_search_fn="strong_wolfe")
    plain = torch.optim.LBFGS(module.parameters())
    inexact = {
        BlockClip(risk, 1.0): "each block is clipped: leave out --block-clip",
        GradientPenalty(risk, 0.5, lr=0.1): "forward differences: use --penalty-method exact",
        GradientPenalty(risk, 0.5, lr=0.1, method="central"): "central differences: use --penalty-method exact",
    }
    before = oracles.theta(module)
    for objective, cause in inexact.items():
        with pytest.raises(ValueError, match=rf"line search \(strong_wolfe\).*{cause}, or use no line search"):
            take_step(search, objective)
        refuse_line_search(plain, objective, None)
    with pytest.raises(ValueError, match=r"clip_norm\(1, l2\) changes the gradient: leave out --clip, or"):
        take_step(search, risk, clip_norm(1.0))
    assert torch.equal(oracles.theta(module), before)
    exact = GradientPenalty(risk, 0.5, lr=0.1, method="exact")
    value = exact.evaluate().value
    take_step(search, exact)
    assert exact.evaluate().value < value
