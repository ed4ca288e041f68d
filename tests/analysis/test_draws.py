"""The spread of an objective's gradient over draws, against enumeration and plain formulas."""

import itertools

import pytest
import torch

from noiseless.analysis import gradient_draws
from noiseless.objective import EmpiricalRisk, squared_error

EXAMPLES, FEATURES = 6, 3


def linear(seed=0):
    """A linear model in float64 with its data."""
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Linear(FEATURES, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(1, FEATURES, generator=generator, dtype=torch.float64))
    x = torch.randn(EXAMPLES, FEATURES, generator=generator, dtype=torch.float64)
    y = torch.randn(EXAMPLES, 1, generator=generator, dtype=torch.float64)
    return model, x, y


def risk(model, x, y, examples):
    return EmpiricalRisk(model, squared_error, (x[list(examples)], y[list(examples)]))


def test_all_pairs_of_examples_have_the_variance_of_the_finite_population():
    """With g_i the gradient of example i, mini-batches of b of N without replacement have a mean squared distance of
    `S / b (1 - b / N)` from the full gradient, with `S = sum_i ||g_i - g||^2 / (N - 1)`. All C(6, 2) = 15 pairs, each
    once, have that as their population variance, which is (15 - 1) / 15 times the sample variance."""
    model, x, y = linear()
    weight = model.weight.detach()
    single = torch.stack(
        [torch.func.grad(lambda w, i=i: ((x[i] @ w.T - y[i]) ** 2 / 2).sum())(weight) for i in range(6)]
    )
    ratio = risk(model, x, y, range(6)).evaluate().gradient.norm() / single.mean(0).norm()  # the loss's constant
    single = single * ratio
    covariance = ((single - single.mean(0)) ** 2).sum() / (EXAMPLES - 1)
    pairs = list(itertools.combinations(range(EXAMPLES), 2))
    moments = gradient_draws(risk(model, x, y, pair) for pair in pairs)
    expected = covariance / 2 * (1 - 2 / EXAMPLES)
    assert moments.covariance_trace * (len(pairs) - 1) / len(pairs) == pytest.approx(float(expected), rel=1e-12)
    assert moments.gradient_norm == pytest.approx(float(single.mean(0).norm()), rel=1e-12)
    assert moments.signal == pytest.approx(float(single.mean(0).norm() ** 2) - moments.covariance_trace / 15, rel=1e-12)


def test_equal_draws_have_no_spread_at_all():
    model, x, y = linear(1)
    moments = gradient_draws(risk(model, x, y, range(EXAMPLES)) for _ in range(3))
    assert moments.covariance_trace == 0.0
    assert moments.signal == pytest.approx(moments.gradient_norm**2, rel=1e-15)


def test_one_draw_is_refused():
    model, x, y = linear()
    with pytest.raises(ValueError, match="needs two or more, not 1"):
        gradient_draws([risk(model, x, y, range(EXAMPLES))])


def test_a_gradient_that_is_not_finite_is_refused():
    model, x, y = linear()
    x = x.clone()
    x[0] = 1e200
    with pytest.raises(ValueError, match="not finite"):
        gradient_draws(risk(model, x, y, (0, k)) for k in (1, 2))
