"""Gradients of the Hessian, against dense third derivatives by torch.func in float64."""

import oracles
import problems
import pytest
import torch
from torch.func import functional_call, jacrev

from noiseless.objective import (
    EmpiricalRisk,
    Execution,
    GradientPenalty,
    SharpnessAware,
    cross_entropy,
    hessian_gradient,
    hessian_gradient_passes,
)
from noiseless.objective.thirds import pairs

K = 3


def vectors(objective, count=K):
    return torch.randn(count, len(objective.space), generator=problems.generator(5), dtype=torch.float64)


def dense_third(value, theta):
    """All third derivatives, `[P, P, P]`; the last index is that of the outer derivative."""
    return jacrev(jacrev(jacrev(value)))(theta)


def loss_of(module, data, space):
    """theta -> mean cross entropy over all data, by torch.func."""
    x, y = data

    def value(theta):
        logits = functional_call(module, space.split(theta), (x,))
        return torch.nn.functional.cross_entropy(logits, y)

    return value


@pytest.mark.parametrize("block", [3, 11])
def test_equals_the_contracted_dense_third_derivative(block):
    module, data = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, data, block=block)
    U, theta = vectors(risk), risk.space.theta.detach().clone()
    W = torch.randn(2, K, K, generator=problems.generator(6), dtype=torch.float64)  # not symmetric
    third = dense_third(loss_of(module, data, risk.space), theta)
    expected = torch.einsum("mij,ia,jb,abp->mp", W, U, U, third)
    torch.testing.assert_close(hessian_gradient(risk, U, W), expected, **oracles.ROUNDING)
    torch.testing.assert_close(hessian_gradient(risk, U, W[1]), expected[1], **oracles.ROUNDING)
    assert torch.equal(risk.space.theta, theta)


def test_of_pairs_are_all_forms():
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points(), block=4)
    U = vectors(risk)
    W = torch.randn(K, K, generator=problems.generator(6), dtype=torch.float64)
    rows, columns = torch.triu_indices(K, K)
    coefficients = torch.where(rows == columns, W[rows, columns], W[rows, columns] + W[columns, rows])
    combined = coefficients @ hessian_gradient(risk, U, pairs(K))
    torch.testing.assert_close(combined, hessian_gradient(risk, U, W), **oracles.ROUNDING)


def test_with_batch_norm_is_the_derivative_of_products():
    # (d/dt) u.H(theta + t d) u at t = 0, by central differences: h**2 times a fifth derivative, and rounding / h
    risk = EmpiricalRisk(problems.convolution(), cross_entropy, problems.images(), block=4)
    u, d = vectors(risk, 2)
    gradient = hessian_gradient(risk, u[None], torch.ones(1, 1))
    theta, h = risk.space.theta.detach().clone(), 1e-4
    forms = []
    for sign in (1, -1):
        with risk.space.at(theta + sign * h * d):
            forms.append(float(u @ risk.hvp(u[None])[0]))
    assert float(gradient @ d) == pytest.approx((forms[0] - forms[1]) / (2 * h), rel=1e-5)


def test_of_a_penalised_value_and_of_a_wrapper():
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points(), block=6)
    penalised = GradientPenalty(risk, 0.7, lr=0.4, method="exact")
    u, d = vectors(risk, 2)
    gradient = hessian_gradient(penalised, u[None], torch.ones(1, 1))
    theta, h = risk.space.theta.detach().clone(), 1e-4
    forms = []
    for sign in (1, -1):
        with risk.space.at(theta + sign * h * d):
            forms.append(float(u @ penalised.hvp(u[None])[0]))
    assert float(gradient @ d) == pytest.approx((forms[0] - forms[1]) / (2 * h), rel=1e-5)
    wrapped = SharpnessAware(risk, 0.1)
    W = torch.ones(1, 1)
    assert torch.equal(hessian_gradient(wrapped, u[None], W), hessian_gradient(risk, u[None], W))


def test_has_the_same_bits_for_any_chunk():
    data = problems.points()
    one, other = (
        EmpiricalRisk(problems.perceptron(), cross_entropy, data, block=3, execution=Execution(chunk=chunk))
        for chunk in (1, 4)
    )
    W = torch.ones(K, K)
    assert torch.equal(hessian_gradient(one, vectors(one), W), hessian_gradient(other, vectors(other), W))


def test_cost_in_passes():
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points(), block=4)
    assert hessian_gradient_passes(risk, torch.ones(1, 1)) == 9  # 3 for the form, 6 for its gradient
    # pairs of 2: 5 for the products; (0, 0), (0, 1) and (1, 1) use one product each: 6 each
    assert hessian_gradient_passes(risk, pairs(2)) == 5 + 3 * 6
    assert hessian_gradient_passes(risk, torch.eye(2)) == 5 + 10


def test_of_a_quadratic_is_zero():
    # the squared error of a linear model is quadratic in its parameters
    model = problems.fill(torch.nn.Linear(3, 2))
    risk = EmpiricalRisk(model, lambda o, t: (o - t).square().sum(1), (problems.points()[0], problems.targets(width=2)))
    assert hessian_gradient(risk, vectors(risk), torch.ones(K, K)).abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(2, 2), (K,), (1, K, 2)])
def test_other_shapes_are_refused(shape):
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points())
    with pytest.raises(ValueError, match="weights must have shape"):
        hessian_gradient(risk, vectors(risk), torch.ones(shape))


def test_a_penalty_on_the_full_gradient_is_refused():
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, problems.points())
    penalised = GradientPenalty(risk, 0.5, lr=0.1, full_strength=1.0)
    with pytest.raises(ValueError, match="couples all blocks"):
        hessian_gradient(penalised, vectors(risk), torch.ones(K, K))
