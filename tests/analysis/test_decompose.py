"""One pass of mini-batches beside the full batch: all orders of a small regression, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk
from noiseless.analysis.decompose import OnePass, check_batch, compare_orders, drawn_order

N, P = 6, 3
RNG = torch.Generator().manual_seed(3)
X, Y, THETA = (torch.randn(*shape, generator=RNG, dtype=torch.float64) for shape in ((N, P), (N, 1), (1, P)))


def regression(count: int = N) -> EmpiricalRisk:
    """`(x . theta - y)^2` over the first examples: a quadratic."""
    module = nn.Linear(P, 1, bias=False).double()
    module.weight.data = THETA.clone()
    return EmpiricalRisk(module, lambda out, y: (out - y).square().flatten(1).sum(1), (X[:count], Y[:count]))


def gradient(theta: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """`2 mean (x . theta - y) x`, by hand."""
    x, y = X[rows], Y[rows, 0]
    return 2 * ((x @ theta - y)[:, None] * x).mean(0)


def hessian(rows: list[int]) -> torch.Tensor:
    return 2 * X[rows].T @ X[rows] / len(rows)


def walk(batches: list[list[int]], lr: float) -> torch.Tensor:
    theta = THETA[0].clone()
    for rows in batches:
        theta = theta - lr * gradient(theta, rows)
    return theta - THETA[0]


def cut(order: tuple[int, ...], batch: int) -> list[list[int]]:
    return [list(order[k : k + batch]) for k in range(0, len(order), batch)]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_each_order_is_that_of_a_naive_loop(batch):
    one_pass, lr, m = OnePass(regression(), 0.05), 0.05, N // batch
    full = one_pass.full([m, 1])
    torch.testing.assert_close(full[m], walk([list(range(N))] * m, lr), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(full[1], walk([list(range(N))], lr), rtol=1e-12, atol=1e-14)
    order = (4, 0, 5, 2, 1, 3)
    parts = cut(order, batch)
    batches = one_pass.batches(torch.tensor(order), batch)
    torch.testing.assert_close(one_pass.stochastic(batches), walk(parts, lr), rtol=1e-12, atol=1e-14)
    both = (walk(parts, lr) + walk(parts[::-1], lr)) / 2
    torch.testing.assert_close(one_pass.both_ways(batches), both, rtol=1e-12, atol=1e-14)
    # -T (lr / 2) mean_b H_b g_b and T (lr / 2) H g, with T = m lr
    products = torch.stack([hessian(rows) @ gradient(THETA[0], rows) for rows in parts]).mean(0)
    torch.testing.assert_close(one_pass.implicit(batches), -m * lr**2 / 2 * products, rtol=1e-11, atol=1e-14)
    g = gradient(THETA[0], list(range(N)))
    expected = m * lr**2 / 2 * hessian(list(range(N))) @ g
    torch.testing.assert_close(one_pass.curvature(m, g), expected, rtol=1e-11, atol=1e-14)
    assert torch.equal(one_pass.risk.space.theta.double(), THETA[0])
    assert one_pass.risk.module.training


def test_the_implicit_drift_is_the_gradient_of_the_mean_squared_norm():
    theta = THETA[0].clone().requires_grad_()
    parts, lr = cut((5, 1, 0, 3, 2, 4), 2), 0.1
    value = torch.stack([gradient(theta, rows).square().sum() for rows in parts]).mean()
    (slope,) = torch.autograd.grad(lr / 4 * value, theta)
    one_pass = OnePass(regression(), lr)
    drift = one_pass.implicit(one_pass.batches(torch.tensor([5, 1, 0, 3, 2, 4]), 2))
    torch.testing.assert_close(drift, -3 * lr * slope, rtol=1e-11, atol=1e-14)


def test_over_all_orders_what_is_left_is_of_third_order():
    """D - P over all 6! orders of batches of 2 falls by 8 with half the rate; D itself, of second order, by 4."""
    lengths = []
    for lr in (0.01, 0.005):
        one_pass, m = OnePass(regression(), lr), 3
        full = walk([list(range(N))] * m, lr)
        curvature = one_pass.curvature(m, gradient(THETA[0], list(range(N))))
        ends, products = torch.zeros(P, dtype=torch.float64), torch.zeros(P, dtype=torch.float64)
        for order in itertools.permutations(range(N)):
            parts = cut(order, 2)
            ends += walk(parts, lr)
            products += sum(hessian(rows) @ gradient(THETA[0], rows) for rows in parts) / m
        displacement = ends / math.factorial(N) - full
        predicted = -m * lr**2 / 2 * products / math.factorial(N) + curvature
        lengths.append((displacement.norm(), (displacement - predicted).norm()))
    (d, r), (half_d, half_r) = lengths
    assert d / half_d == pytest.approx(4, rel=0.1)
    assert r / half_r == pytest.approx(8, rel=0.1)


def test_with_replacement_the_mean_over_all_draws_is_the_full_batch_for_a_quadratic():
    """The gradient is linear and the draws are independent: E theta_(k+1) = E theta_k - lr g(E theta_k), exactly."""
    risk = regression(4)
    one_pass = OnePass(risk, 0.05)
    full = one_pass.full([2])[2]
    draws = list(itertools.product(range(4), repeat=4))  # two batches of 2
    mean = sum(one_pass.stochastic(one_pass.batches(torch.tensor(draw), 2)) for draw in draws) / len(draws)
    torch.testing.assert_close(mean, full, rtol=1e-11, atol=1e-13)


def test_a_comparison_is_that_of_explicit_vectors():
    rng = torch.Generator().manual_seed(1)
    signal = torch.randn(7, generator=rng, dtype=torch.float64)
    D = signal + 0.3 * torch.randn(5, 7, generator=rng, dtype=torch.float64)
    P_ = 0.5 * signal + 0.3 * torch.randn(5, 7, generator=rng, dtype=torch.float64)

    def dot(a, b):
        """Mean of a_o . b_p over o != p, from sums: the product of the sums less that of equal orders."""
        n = len(a)
        return float((a.sum(0) @ b.sum(0) - (a * b).sum()) / (n * (n - 1)))

    def numbers(d, p):
        dd, pp, dp, rr = dot(d, d), dot(p, p), dot(d, p), dot(d - p, d - p)
        return [dd**0.5, pp**0.5, rr**0.5, dp / (dd * pp) ** 0.5, dp / pp, dp**2 / dd / pp]

    result = compare_orders(D, P_)
    left = [numbers(D[torch.arange(5) != k], P_[torch.arange(5) != k]) for k in range(5)]
    names = ("displacement", "prediction", "residual", "cosine", "coefficient", "explained")
    for k, name in enumerate(names):
        estimate, values = getattr(result, name), torch.tensor([row[k] for row in left])
        assert estimate.value == pytest.approx(numbers(D, P_)[k], rel=1e-10)
        assert estimate.error == pytest.approx(math.sqrt(4 * values.var(unbiased=False).item()), rel=1e-5)
    with pytest.raises(ValueError, match="at least three orders"):
        compare_orders(D[:2], P_[:2])


def test_the_length_of_a_mean_of_noise_is_not_told_from_zero():
    """The plain mean of 4 unit normal vectors [500] has a length of about 11; half of the estimates are None."""
    rng = torch.Generator().manual_seed(0)
    squares = []
    for _ in range(40):
        noise = torch.randn(4, 500, generator=rng, dtype=torch.float64)
        squares.append((compare_orders(noise, torch.ones(4, 500)).displacement.value or 0.0) ** 2)
    assert 5 < squares.count(0.0) < 35
    assert sum(squares) / 40 < 20


def test_batch_sizes_and_orders():
    for batch in (1, 2, 3):
        check_batch(batch, 6)
    for batch in (0, 4, 6, 7):
        with pytest.raises(ValueError, match="must divide the 6 examples"):
            check_batch(batch, 6)
    assert sorted(drawn_order(0, 3, 50, False).tolist()) == list(range(50))
    drawn = drawn_order(0, 3, 50, True)
    assert len(drawn) == 50
    assert len(set(drawn.tolist())) < 50
    assert not torch.equal(drawn, drawn_order(0, 4, 50, True))
