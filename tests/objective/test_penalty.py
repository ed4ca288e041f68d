"""The penalty: its gradient against autograd of its value, the order of its differences, its cost, its buffers."""

from __future__ import annotations

import oracles
import problems
import pytest
import torch
from oracles import ROUNDING
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, squared_error
from noiseless.objective import BlockClip

LR, METHODS = 0.8, ("forward", "central", "exact")
STRENGTHS = [(0.5, 0.0), (0.0, 0.7), (0.5, 0.7)]


def _penalty(make=problems.with_batch_norm, block=3, strength=0.5, chunk=1, **settings):
    risk = EmpiricalRisk(make(), cross_entropy, problems.points(), block=block, execution=Execution(chunk=chunk))
    return GradientPenalty(risk, strength, lr=LR, **settings)


def _oracle(penalty, block=3):
    risk = penalty.risk
    plain = oracles.ghosted(risk.module, block)
    return oracles.Penalised(plain, cross_entropy, risk.data, block, LR, penalty.strength, penalty.full_strength)


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(("strength", "full"), STRENGTHS)
@pytest.mark.parametrize("make", [problems.perceptron, problems.with_batch_norm])
def test_the_exact_gradient_equals_that_of_the_value(make, strength, full, chunk):
    penalty = _penalty(make, strength=strength, chunk=chunk, full_strength=full, method="exact")
    oracle, point, evaluation = _oracle(penalty), oracles.theta(penalty.risk.module), penalty.evaluate()
    assert evaluation.value == pytest.approx(float(oracle(point)), rel=1e-12)
    torch.testing.assert_close(evaluation.gradient, oracle.gradient(point), rtol=1e-10, atol=1e-12)
    assert evaluation.loss == pytest.approx(penalty.risk.evaluate().loss, rel=1e-14)
    assert evaluation.penalty > 1e-3


@pytest.mark.parametrize(("strength", "full"), STRENGTHS)
@pytest.mark.parametrize("make", [problems.perceptron, problems.with_batch_norm])
def test_the_exact_gradient_agrees_with_central_differences_of_the_value(make, strength, full):
    penalty = _penalty(make, strength=strength, full_strength=full, method="exact")
    point, exact_gradient = oracles.theta(penalty.risk.module), penalty.evaluate().gradient
    # orthonormal directions: a wrong component shows in each of them
    directions = torch.randn(len(point), 8, dtype=point.dtype, generator=problems.generator())
    directions = torch.linalg.qr(directions).Q.T

    def value(vector):
        penalty.space.theta.copy_(vector)
        return penalty.evaluate().value

    differences = oracles.central_difference(value, point, 1e-5, directions)
    # h**2 / 6 times a third derivative (up to some 1e3 where a norm divides by a small deviation), and 2**-53 / h
    torch.testing.assert_close(directions @ exact_gradient, differences, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_the_product_is_along_the_gradient_of_the_block_plus_the_full_one(method):
    # L_b = mean (theta x - y)**2 / 2 with x = 1 in block 0 and x = 2 in block 1, y = 0, at theta = 3: g = 3 and 12,
    # H = 1 and 4, each block half the data: g_full = 7.5. v_b = 0.4 g_b + 0.2 g_full = 2.7 and 6.3. At lr = 0.8 the
    # gradient is 7.5 + (0.8 / 4) (1 * 2.7 + 4 * 6.3) / 2 = 10.29; the penalty (0.8 / 8) (0.4 (9 + 144) / 2 +
    # 0.2 * 56.25)
    module = nn.Linear(1, 1, bias=False).double()
    module.weight.data.fill_(3.0)
    x = torch.tensor([[1.0], [1.0], [2.0], [2.0]]).double()
    risk = EmpiricalRisk(
        module, lambda output, y: squared_error(output, y) / 2, [x, 0 * x], block=2, execution=Execution(chunk=2)
    )
    evaluation = GradientPenalty(risk, 0.4, lr=0.8, full_strength=0.2, method=method).evaluate()
    assert evaluation.gradient.item() == pytest.approx(10.29)
    assert evaluation.penalty == pytest.approx(0.1 * (30.6 + 11.25))
    assert evaluation.loss == pytest.approx((4.5 + 18) / 2)


def test_the_constant_is_an_eighth_in_the_value_and_a_quarter_in_the_gradient():
    # L = mean (theta x - y)**2 with x = 1, y = 0: L = theta**2, g = 2 theta, H = 2. At theta = 3, lr = 0.8, s = 0.5:
    # penalty (0.8 / 8) * 0.5 * 36 = 1.8; gradient 6 + (0.8 / 4) * 0.5 * 2 * 6 = 7.2
    module = nn.Linear(1, 1, bias=False).double()
    module.weight.data.fill_(3.0)
    risk = EmpiricalRisk(module, squared_error, [torch.ones(4, 1).double(), torch.zeros(4, 1).double()], block=3)
    for method in METHODS:
        evaluation = GradientPenalty(risk, 0.5, lr=0.8, method=method).evaluate()
        assert evaluation.loss == pytest.approx(9.0)
        assert evaluation.penalty == pytest.approx(1.8)
        assert evaluation.gradient.item() == pytest.approx(7.2)  # L is quadratic: differences are exact up to rounding
        both = GradientPenalty(risk, 0.3, full_strength=0.2, lr=0.8, method=method).evaluate()
        assert (both.penalty, both.gradient.item()) == (pytest.approx(1.8), pytest.approx(7.2))


@pytest.mark.parametrize(("strength", "full"), STRENGTHS)
@pytest.mark.parametrize(("method", "order"), [("forward", 1), ("central", 2)])
def test_differences_have_their_order(method, order, strength, full):
    # error = c eps**order (1 + O(eps)): halving eps divides it by 2 or 4. At eps = 1e-3 the next term is some 1e-3
    # times a ratio of derivatives (below 50 here); rounding, 1e-16 / eps, is far below both.
    errors = []
    for eps in (2e-3, 1e-3):
        settings = {"strength": strength, "full_strength": full}
        exact = _penalty(method="exact", **settings).evaluate().gradient
        errors.append(float((_penalty(method=method, eps=eps, **settings).evaluate().gradient - exact).norm()))
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.05)


@pytest.mark.parametrize("chunk", [2, 5])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("full", [0.0, 0.7])
def test_the_chunk_does_not_change_the_result(method, chunk, full):
    one = _penalty(method=method, full_strength=full).evaluate()
    many = _penalty(method=method, chunk=chunk, full_strength=full).evaluate()
    # differences divide rounding (1e-16 times some ten) by h, of size 1e-2 / ||v||
    torch.testing.assert_close(many.gradient, one.gradient, rtol=1e-10, atol=1e-12)
    assert many.value == pytest.approx(one.value, rel=1e-12)


@pytest.mark.parametrize("make", [problems.perceptron, problems.with_batch_norm])
def test_hvp_equals_the_dense_hessian(make):
    penalty = _penalty(make)
    hessian = _oracle(penalty).hessian(oracles.theta(penalty.risk.module))
    V = torch.randn(2, len(penalty.space), generator=problems.generator(), dtype=torch.float64)
    # three derivatives through batch norm: entries up to some 1000 lose three digits to cancellation
    torch.testing.assert_close(penalty.hvp(V), V @ hessian, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm1d(4), nn.GroupNorm(1, 4), nn.LayerNorm(4)])
def test_hvp_is_the_slope_of_the_gradient_through_any_norm(norm):
    # torch's own third derivatives end at batch norm's second, and are wrong for layer norm (torch 2.14.1)
    module = problems.fill(nn.Sequential(nn.Linear(3, 4), norm, nn.Tanh(), nn.Linear(4, 3)))
    penalty = _penalty(lambda: module, method="exact")
    point, v = oracles.theta(module), torch.randn(len(penalty.space), generator=problems.generator()).double()
    slopes = []
    for sign in (1, -1):
        penalty.space.theta.copy_(point + sign * 1e-5 * v)
        slopes.append(penalty.evaluate().gradient)
    penalty.space.theta.copy_(point)
    # h**2 / 6 times a fourth derivative, which is large where a norm divides by a small deviation, plus 2**-53 / h
    torch.testing.assert_close(penalty.hvp(v[None])[0], (slopes[0] - slopes[1]) / 2e-5, rtol=1e-5, atol=1e-6)


def test_hvp_changes_no_buffer():
    penalty = _penalty()
    before = problems.state(penalty.risk.module)
    penalty.hvp(penalty.space.theta[None])
    assert problems.same_bits(problems.state(penalty.risk.module), before)


def test_hvp_with_full_strength_is_refused():
    with pytest.raises(ValueError, match="couples all blocks"):
        _penalty(full_strength=0.1).hvp(torch.zeros(1, 52, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("full", [0.0, 0.7])
def test_zero_gradient_gives_zero_penalty(method, full, dtype):
    module = nn.Linear(2, 1).to(dtype)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    x, y = torch.ones(6, 2, dtype=dtype), torch.zeros(6, 1, dtype=dtype)
    risk = EmpiricalRisk(module, squared_error, [x, y], block=4)
    evaluation = GradientPenalty(risk, 0.5, full_strength=full, lr=LR, method=method).evaluate()
    assert evaluation.penalty == 0.0
    assert torch.equal(evaluation.gradient, torch.zeros(3, dtype=dtype))


@pytest.mark.parametrize("method", METHODS)
def test_a_block_without_gradient_does_not_change_the_others(method):
    # theta = 0: block 0 has target 0 and is at rest; block 1 has x = 1, y = 1: g = -2, H = 2 (no bias)
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(module.weight)
    y = torch.tensor([[0.0], [0.0], [1.0], [1.0]]).double()
    risk = EmpiricalRisk(module, squared_error, [torch.ones(4, 1).double(), y], block=2, execution=Execution(chunk=2))
    evaluation = GradientPenalty(risk, 1.0, lr=4.0, method=method).evaluate()
    # mean of 0 and -2 + (4 / 4) * 2 * -2 = -6
    assert evaluation.gradient.item() == pytest.approx(-3.0)


@pytest.mark.parametrize(("method", "passes"), [("forward", 2.0), ("central", 3.0), ("exact", 3.0)])
@pytest.mark.parametrize("full", [0.0, 0.7])
def test_passes_are_counted(method, passes, full):
    assert _penalty(method=method, full_strength=full).evaluate().passes == passes + (full > 0)


@pytest.mark.parametrize(("method", "probes"), [("forward", 1), ("central", 2)])
@pytest.mark.parametrize("full", [0.0, 0.7])
def test_passes_count_the_forwards_of_the_model(method, probes, full):
    penalty = _penalty(method=method, full_strength=full)
    penalty.measure()  # the first sweep also compares a few examples with the module as it stands
    batch_sizes = []
    penalty.risk.module.register_forward_hook(lambda module, inputs, output: batch_sizes.append(len(output)))
    passes = penalty.evaluate().passes
    assert sum(batch_sizes) == passes * problems.COUNT
    assert passes == 1 + probes + (full > 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("full", [0.0, 0.7])
@pytest.mark.parametrize("statistics", ["average", "ema"])
def test_probes_change_neither_buffers_nor_parameters(method, full, statistics):
    module = problems.with_batch_norm()
    before = problems.state(module)
    risk = EmpiricalRisk(
        module, cross_entropy, problems.points(), block=3, execution=Execution(chunk=2), statistics=statistics
    )
    penalty = GradientPenalty(risk, 0.5, full_strength=full, lr=LR, method=method)
    evaluation = penalty.evaluate()
    assert problems.same_bits(problems.state(module), before)
    plain = risk.evaluate()
    torch.testing.assert_close(evaluation.statistics, plain.statistics, rtol=0, atol=0)  # not those of the probes
    penalty.accept(evaluation)
    changed = [name for name, t in problems.state(module).items() if not torch.equal(t, before[name])]
    assert changed == [name for name in before if "running" in name or "tracked" in name]


def test_block_square_norms_are_those_of_the_loss():
    penalty = _penalty()
    torch.testing.assert_close(
        penalty.evaluate().block_square_norms, penalty.risk.evaluate().block_square_norms, **ROUNDING
    )


def test_a_penalty_on_the_full_gradient_is_on_the_unclipped_one():
    data, penalties = problems.points(), []
    for clip in (None, 1e-3):
        risk = EmpiricalRisk(problems.perceptron(), cross_entropy, data, block=3)
        penalty = GradientPenalty(risk, 0.5, lr=LR, full_strength=0.4)
        objective = penalty if clip is None else BlockClip(penalty, clip)
        penalties += [objective.evaluate().penalty, objective.measure().penalty]
    assert penalties[0] > 0
    assert penalties == penalties[:1] * 4


def test_only_the_exact_method_without_block_clip_is_exact():
    assert not _penalty(method="forward").exact
    assert not _penalty(method="central").exact
    assert _penalty(method="exact").exact
    assert not BlockClip(_penalty(method="exact"), 1.0).exact


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": -0.5}, "strength must be a finite number of at least 0, not -0.5"),
        ({"strength": float("nan")}, "strength must be a finite number of at least 0, not nan"),
        ({"lr": float("inf")}, "lr must be a finite number of at least 0, not inf"),
        ({"full_strength": -1.0}, "full_strength must be a finite number"),
        ({"eps": 0.0}, "eps must be a positive number, not 0.0"),
        ({"method": "backward"}, "method must be one of forward, central, exact, not 'backward'"),
    ],
)
def test_bad_numbers_are_refused(settings, message):
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points())
    with pytest.raises(ValueError, match=message):
        GradientPenalty(risk, **{"strength": 0.5, "lr": LR, **settings})
