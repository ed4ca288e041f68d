"""Modules that draw random numbers, write buffers, or do not run under vmap; and the random state around a sweep."""

from __future__ import annotations

import dataclasses

import oracles
import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, Selection, cross_entropy
from noiseless.objective import TensorExamples


def _risk(chunk=1, seed=0, step=0):
    selection = Selection(TensorExamples(problems.points()), seed=seed, step=step)
    return EmpiricalRisk(problems.with_dropout(), cross_entropy, selection, block=3, execution=Execution(chunk=chunk))


@pytest.mark.parametrize("chunk", [2, 3, 5])
@pytest.mark.parametrize("method", [None, "forward", "exact"])
def test_random_modules_give_the_same_bits_for_any_chunk(method, chunk):
    evaluations = []
    for risk in (_risk(1, seed=3, step=2), _risk(chunk, seed=3, step=2)):
        evaluations.append((GradientPenalty(risk, 0.5, lr=0.1, method=method) if method else risk).evaluate())
    assert torch.equal(evaluations[0].gradient, evaluations[1].gradient)
    assert torch.equal(evaluations[0].block_square_norms, evaluations[1].block_square_norms)
    assert evaluations[0].value == evaluations[1].value


@pytest.mark.parametrize("chunk", [1, 3])
def test_draws_are_keyed_by_seed_and_step(chunk):
    base = _risk(chunk, seed=3, step=2)
    torch.manual_seed(0)
    first = base.evaluate().gradient
    torch.manual_seed(1)
    assert torch.equal(base.evaluate().gradient, first)
    for other in ({"step": 3}, {"seed": 4}):
        assert not torch.equal(base.at(dataclasses.replace(base.selection, **other)).evaluate().gradient, first)


def test_draws_are_keyed_by_block():
    x, y = problems.points(3)
    risk = EmpiricalRisk(problems.with_dropout(), cross_entropy, (x.repeat(2, 1), y.repeat(2)), block=3)
    square_norms = risk.evaluate().block_square_norms
    assert square_norms[0] != square_norms[1]
    part = risk.at(dataclasses.replace(risk.selection, order=torch.arange(3, 6), first=1, examples_per_pass=6))
    assert part.evaluate().block_square_norms[0] == square_norms[1]


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("make", [problems.with_dropout, problems.perceptron])
def test_the_global_random_state_is_unchanged(make, chunk):
    risk = EmpiricalRisk(make(), cross_entropy, problems.points(), block=3, execution=Execution(chunk=chunk))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    evaluation = risk.evaluate()
    risk.hvp(evaluation.gradient[None])
    for method in ("forward", "central", "exact"):
        GradientPenalty(risk, 0.5, lr=0.1, method=method).evaluate()
    risk.accept(evaluation)
    assert torch.equal(torch.get_rng_state(), before)


def test_all_evaluations_at_a_step_have_one_dropout_mask():
    # so with dropout, too, the gradient is that of the value and the Hessian that of the gradient
    penalty = GradientPenalty(_risk(step=4), 0.5, lr=0.8, method="exact")
    point = oracles.theta(penalty.risk.module)

    def value(vector):
        penalty.space.theta.copy_(vector)
        return penalty.evaluate().value

    differences = oracles.central_difference(value, point, 1e-5)
    penalty.space.theta.copy_(point)
    # h**2 / 6 times a third derivative of some 10, plus 2**-53 / h
    torch.testing.assert_close(penalty.evaluate().gradient, differences, rtol=0, atol=1e-8)
    v = torch.randn(len(point), generator=problems.generator(), dtype=torch.float64)
    slopes = []
    for sign in (1, -1):
        penalty.space.theta.copy_(point + sign * 1e-5 * v)
        slopes.append(penalty.evaluate().gradient)
    penalty.space.theta.copy_(point)
    torch.testing.assert_close(penalty.hvp(v[None])[0], (slopes[0] - slopes[1]) / 2e-5, rtol=0, atol=1e-6)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.fc(x)


class Assigned(InPlace):
    def forward(self, x):
        self.calls = self.calls + x.detach().mean()
        return self.fc(x)


@pytest.mark.parametrize(("make", "chunk"), [(InPlace, 1), (Assigned, 1), (Assigned, 2)])
def test_a_module_that_writes_its_buffers_is_refused(make, chunk):
    risk = EmpiricalRisk(make().double(), cross_entropy, problems.points(12), block=3, execution=Execution(chunk=chunk))
    with pytest.raises(ValueError, match="writes its buffer 'calls'"):
        risk.evaluate()


@pytest.mark.filterwarnings("ignore:blocks are computed one at a time")
def test_under_vmap_the_write_is_refused_as_well():
    risk = EmpiricalRisk(InPlace().double(), cross_entropy, problems.points(12), block=3, execution=Execution(chunk=2))
    with pytest.raises(ValueError, match="writes its buffer 'calls'"):
        risk.evaluate()


def test_spectral_norm_is_refused_in_training_and_works_in_eval():
    module = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))).double()
    risk = EmpiricalRisk(module, cross_entropy, problems.points())
    with pytest.raises(ValueError, match=r"writes its buffer .*eval"):
        risk.evaluate()
    module.eval()
    assert risk.evaluate().loss == pytest.approx(oracles.one_batch(module, cross_entropy, problems.points())[0])


def test_a_module_that_vmap_cannot_run_is_computed_block_by_block_with_a_warning():
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2 if x.sum() > 0 else 1)

    module = Branching(3, 3).double()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=3, execution=Execution(chunk=2))
    with pytest.warns(
        UserWarning,
        match="one at a time, because the module or loss does not run under.*torch.where in place of if",
    ):
        evaluation = risk.evaluate()
    assert torch.equal(risk.evaluate().gradient, evaluation.gradient)  # without another warning
    assert risk.measure().loss == evaluation.loss
    naive = oracles.block_loop(module, cross_entropy, problems.points(), 3)
    torch.testing.assert_close(evaluation.gradient, naive.gradient, **oracles.ROUNDING)


def test_a_module_that_raises_another_error_under_vmap_is_computed_block_by_block():
    class Wrapping(nn.Linear):
        def forward(self, x):
            try:
                return super().forward(x) * (2 if x.sum() > 0 else 1)
            except RuntimeError as error:
                raise TypeError("what is this?") from error

    module = Wrapping(3, 3).double()
    settings = {"block": 3, "execution": Execution(chunk=2)}
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), **settings)
    with pytest.warns(UserWarning, match="one at a time, .* torch.func.vmap: TypeError: what is this"):
        assert risk.measure().loss == pytest.approx(oracles.one_batch(module, cross_entropy, problems.points())[0])
    naive = oracles.block_loop(module, cross_entropy, problems.points(), 3)
    torch.testing.assert_close(risk.evaluate().gradient, naive.gradient, **oracles.ROUNDING)


@pytest.mark.parametrize("chunk", [1, 2])
def test_an_error_of_the_module_is_raised(chunk):
    risk = EmpiricalRisk(
        nn.Linear(4, 3).double(), cross_entropy, problems.points(), block=3, execution=Execution(chunk=chunk)
    )
    with pytest.raises(ValueError, match=r"^the module's forward raises .* \(3x3 and 4x3\) \(in a Linear\)$"):
        risk.evaluate()
