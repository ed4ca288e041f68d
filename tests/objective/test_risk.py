"""The sweep against naive loops, the gradient against central differences, the Hessian products against a dense one."""

from __future__ import annotations

import dataclasses

import oracles
import problems
import pytest
import torch
from oracles import ROUNDING
from problems import COUNT
from torch import nn

from noiseless import EmpiricalRisk, Execution, Selection, cross_entropy, parameter_space, squared_error
from noiseless.objective import BlockClip, TensorExamples

BLOCKS, CHUNKS = (1, 3, 7, COUNT), (1, 2, 5)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("block", BLOCKS)
def test_sweep_equals_one_batch_without_batch_norm(block, chunk):
    module, data = problems.perceptron(), problems.points()
    loss, gradient = oracles.one_batch(module, cross_entropy, data)
    naive = oracles.block_loop(module, cross_entropy, data, block)
    evaluation = EmpiricalRisk(module, cross_entropy, data, block=block, execution=Execution(chunk=chunk)).evaluate()
    assert evaluation.loss == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(evaluation.gradient, gradient, **ROUNDING)
    assert evaluation.hits == naive.hits
    assert 0 < evaluation.hits < COUNT
    torch.testing.assert_close(evaluation.block_square_norms, naive.block_square_norms, **ROUNDING)
    assert (evaluation.count, evaluation.passes, evaluation.penalty, evaluation.value) == (
        COUNT, 1.0, 0.0, evaluation.loss,
    )  # fmt: skip


GHOSTS = [(11, 11), (11, 1), (3, 3), (7, 7), (4, 2), (8, 2), (8, 4), (6, 3), (10, 5)]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("block", "norm_block"), GHOSTS)
def test_sweep_equals_the_block_loop_with_batch_norm_over_images(block, norm_block, chunk):
    module, data = problems.convolution(), problems.images()
    naive = oracles.block_loop(oracles.ghosted(module, norm_block), cross_entropy, data, block)
    evaluation = EmpiricalRisk(
        module, cross_entropy, data, block=block, norm_block=norm_block, execution=Execution(chunk=chunk)
    ).evaluate()
    assert evaluation.loss == pytest.approx(naive.loss, rel=1e-11)
    assert evaluation.hits == naive.hits
    torch.testing.assert_close(evaluation.gradient, naive.gradient, **ROUNDING)
    torch.testing.assert_close(evaluation.block_square_norms, naive.block_square_norms, **ROUNDING)


# Norm blocks of at least two examples, also at the end: 10 = 8 + 2 (norm 4: short), 14 = 8 + 6 (norm 4: 4 + 2)
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("count", "block", "norm_block"), [(11, 3, 3), (11, 7, 7), (10, 8, 4), (14, 8, 4), (20, 4, 2)])
def test_sweep_equals_the_block_loop_with_two_batch_norms(count, block, norm_block, chunk):
    module, data = problems.with_batch_norm(), problems.points(count)
    naive = oracles.block_loop(oracles.ghosted(module, norm_block), cross_entropy, data, block)
    evaluation = EmpiricalRisk(
        module, cross_entropy, data, block=block, norm_block=norm_block, execution=Execution(chunk=chunk)
    ).evaluate()
    assert evaluation.loss == pytest.approx(naive.loss, rel=1e-11)
    torch.testing.assert_close(evaluation.gradient, naive.gradient, **ROUNDING)
    torch.testing.assert_close(evaluation.block_square_norms, naive.block_square_norms, **ROUNDING)


def test_without_ghosts_the_loop_is_torchs_own_batch_norm():
    module, data = problems.with_batch_norm(), problems.points()
    evaluation = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=2)).evaluate()
    naive = oracles.block_loop(problems.with_batch_norm(), cross_entropy, data, 3)
    torch.testing.assert_close(evaluation.gradient, naive.gradient, **ROUNDING)


def test_the_norm_block_changes_the_loss():
    module, data = problems.with_batch_norm(), problems.points(12)
    full, ghost = (EmpiricalRisk(module, cross_entropy, data, norm_block=n).evaluate().loss for n in (12, 4))
    assert abs(full - ghost) > 1e-3


def test_in_eval_the_running_statistics_are_used():
    module, data = problems.with_batch_norm().eval(), problems.points()
    loss, gradient = oracles.one_batch(module, cross_entropy, data)
    evaluation = EmpiricalRisk(module, cross_entropy, data, block=1, execution=Execution(chunk=2)).evaluate()
    assert evaluation.loss == pytest.approx(loss, rel=1e-12)
    torch.testing.assert_close(evaluation.gradient, gradient, **ROUNDING)


@pytest.mark.parametrize("make", [problems.perceptron, problems.with_batch_norm])
def test_gradient_agrees_with_central_differences(make):
    risk = EmpiricalRisk(make(), cross_entropy, problems.points(), block=3)
    point = risk.space.theta.clone()

    def value(vector):
        risk.space.theta.copy_(vector)
        return risk.evaluate().value

    differences = oracles.central_difference(value, point, 1e-5)
    risk.space.theta.copy_(point)
    # error h**2 / 6 times a third derivative (up to about 100 through batch norm) plus 2**-53 / h: some 1e-9
    torch.testing.assert_close(risk.evaluate().gradient, differences, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "block"), [(problems.perceptron, 3), (problems.with_batch_norm, 3), (problems.with_batch_norm, 11)]
)
def test_hvp_equals_the_dense_hessian(make, block):
    module, data = make(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, data, block=block, execution=Execution(chunk=2))
    smooth = oracles.ghosted(module, block)
    hessian = oracles.Penalised(smooth, cross_entropy, data, block).hessian(oracles.theta(module))
    V = torch.randn(3, len(risk.space), generator=problems.generator(), dtype=torch.float64)
    torch.testing.assert_close(risk.hvp(V), V @ hessian, rtol=1e-9, atol=1e-11)  # H has entries up to some 100


def test_hvp_of_a_linear_loss_is_zero():
    risk = EmpiricalRisk(nn.Linear(3, 1).double(), lambda output, target: output[:, 0] * target, problems.points(8))
    assert torch.equal(risk.hvp(torch.ones(2, 4, dtype=torch.float64)), torch.zeros(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(15,), (2, 14), (1, 2, 31)])
def test_hvp_refuses_other_shapes(shape):
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points())
    with pytest.raises(ValueError, match=r"V must have shape \[K, 31\]"):
        risk.hvp(torch.zeros(shape, dtype=torch.float64))


def test_a_regression_with_several_inputs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(4, 2)

        def forward(self, x, z):
            return self.a(x).tanh() * self.b(z)

    module = problems.fill(Sum())
    data = (problems.points()[0], problems.targets(width=4, seed=9), problems.targets(width=2))
    loss, gradient = oracles.one_batch(module, squared_error, data)
    for loss_function in (squared_error, nn.MSELoss(reduction="none")):
        for chunk in CHUNKS:
            evaluation = EmpiricalRisk(
                module, loss_function, data, block=3, execution=Execution(chunk=chunk)
            ).evaluate()
            assert evaluation.loss == pytest.approx(loss, rel=1e-12)
            assert evaluation.hits is None
            torch.testing.assert_close(evaluation.gradient, gradient, **ROUNDING)


def test_tied_parameters_count_once_and_frozen_ones_stay():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.frozen, self.b = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.b(self.frozen(self.a(x).tanh()).tanh())

    module, data = problems.fill(Tied()), problems.points()
    _, gradient = oracles.one_batch(module, cross_entropy, data)
    frozen = module.frozen.weight.clone()
    risk = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=2))
    assert risk.space.names == ["a.weight", "a.bias", "b.bias"]
    torch.testing.assert_close(risk.evaluate().gradient, gradient, **ROUNDING)
    risk.space.theta.zero_()
    assert torch.equal(module.frozen.weight, frozen)
    assert module.b.weight is module.a.weight
    assert not module.b.weight.any()


def test_float32_gradients_are_summed_in_float64():
    module, data = problems.perceptron().float(), tuple(t.float() if t.ndim > 1 else t for t in problems.points(200))
    blocks = oracles.block_loop(module, cross_entropy, data, 1).gradient  # float32 gradients of blocks, summed exactly
    swept = EmpiricalRisk(module, cross_entropy, data, block=1).evaluate().gradient
    assert swept.dtype == torch.float32
    # one rounding of the sum to float32, half a unit in the last place
    torch.testing.assert_close(swept.double(), blocks, rtol=2**-24, atol=1e-12)


def test_closure_sets_gradients_and_returns_the_value():
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=3)
    value, evaluation = risk.closure()(), risk.evaluate()
    assert value.item() == evaluation.value
    assert torch.equal(oracles.flat([p.grad for p in module.parameters()]), evaluation.gradient)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_evaluate_works_under_no_grad(chunk):
    risk = EmpiricalRisk(
        problems.perceptron(), cross_entropy, problems.points(), block=3, execution=Execution(chunk=chunk)
    )
    expected = risk.evaluate().gradient
    with torch.no_grad():
        assert torch.equal(risk.evaluate().gradient, expected)


def test_the_order_cuts_the_blocks():
    module, (x, y) = problems.with_batch_norm(), problems.points()
    order = torch.randperm(COUNT, generator=problems.generator())
    ordered = EmpiricalRisk(module, cross_entropy, Selection(TensorExamples((x, y)), order), block=3).evaluate()
    naive = oracles.block_loop(problems.with_batch_norm(), cross_entropy, (x[order], y[order]), 3)
    torch.testing.assert_close(ordered.gradient, naive.gradient, **ROUNDING)


def test_a_part_of_the_data_costs_a_part_of_a_pass():
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points(), block=7)
    evaluation = risk.at(
        dataclasses.replace(risk.selection, order=torch.tensor([3, 1]), examples_per_pass=COUNT)
    ).evaluate()
    assert (evaluation.count, evaluation.passes) == (2, 2 / COUNT)


def test_block_clip_shortens_each_block():
    module, data = problems.perceptron(), problems.points()
    plain = EmpiricalRisk(module, cross_entropy, data, block=1)
    limit = float(plain.evaluate().block_square_norms.median().sqrt())  # half of the blocks are longer
    clipped = BlockClip(dataclasses.replace(plain, execution=Execution(chunk=2)), limit)
    assert plain.exact
    assert not clipped.exact
    expected = torch.zeros(len(plain.space), dtype=torch.float64)
    for k in range(COUNT):
        _, g = oracles.one_batch(module, cross_entropy, [t[k : k + 1] for t in data])
        expected += g * min(1.0, limit / float(g.norm())) / COUNT
    torch.testing.assert_close(clipped.evaluate().gradient, expected, **ROUNDING)
    assert torch.equal(clipped.evaluate().block_square_norms > limit**2, plain.evaluate().block_square_norms > limit**2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": 0}, "block must be a whole number of at least 1, not 0"),
        ({"block": -1}, "block must be a whole number of at least 1, not -1"),
        ({"block": 2.5}, "block must be a whole number of at least 1, not 2.5"),
        ({"block": True}, "block must be a whole number of at least 1, not True"),
        ({"block": 12}, "block 12 is larger than the 11 examples"),
        ({"block": 6, "norm_block": 4}, "norm_block 4 must divide block 6"),
        ({"block": 4, "norm_block": 8}, "norm_block 8 is larger than the 4 examples of a block"),
        ({"norm_block": 0}, "norm_block must be a whole number of at least 1, not 0"),
        ({"statistics": "exact"}, 'statistics must be "average" or "ema"'),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EmpiricalRisk(problems.with_batch_norm(), cross_entropy, problems.points(), **settings)


def test_a_chunk_of_no_block_is_refused():
    with pytest.raises(ValueError, match="chunk must be a whole number of at least 1, not 0"):
        Execution(chunk=0)


@pytest.mark.parametrize("norm", [0.0, float("nan")])
def test_a_block_clip_that_is_no_norm_is_refused(norm):
    risk = EmpiricalRisk(problems.with_batch_norm(), cross_entropy, problems.points())
    with pytest.raises(ValueError, match=f"block clip must be a positive norm, not {norm}"):
        BlockClip(risk, norm)


def test_two_risks_of_a_module_share_its_space():
    module = problems.perceptron()
    a, b = (EmpiricalRisk(module, cross_entropy, problems.points(), block=n) for n in (3, 7))
    assert a.space is b.space is parameter_space(module)
    a.space.theta.add_(0.1)
    assert a.evaluate().loss == pytest.approx(b.evaluate().loss, rel=1e-12)
