"""The edge of stability, against optimizers that are let run on quadratics just below and just above it."""

import pytest
import torch
from torch import nn

from noiseless.analysis import Hessian, preconditioned, stability_threshold, top_eigenvalues
from noiseless.objective import EmpiricalRisk, parameter_space, squared_error

SGDS = [
    {},
    {"weight_decay": 0.3},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.5, "nesterov": True, "weight_decay": 0.2},
]


def grown(make, curvature, steps=3000):
    """By what |x| has grown in steps on curvature x^2 / 2, from x = 1."""
    x = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = make([x])
    for _ in range(steps):
        x.grad = curvature * x.detach().clone()
        optimizer.step()
        if abs(float(x.detach())) > 1e6:
            break
    return abs(float(x.detach()))


@pytest.mark.parametrize("options", SGDS)
@pytest.mark.parametrize("lr", [0.1, 0.4])
def test_sgd_grows_just_above_its_edge_and_not_below(options, lr):
    def make(parameters):
        return torch.optim.SGD(parameters, lr=lr, **options)

    limit = stability_threshold(make([nn.Parameter(torch.ones(1))]))
    assert grown(make, 0.99 * limit - 0.01 * options.get("weight_decay", 0)) < 1
    assert grown(make, 1.01 * limit) > 1e3


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adamw_grows_just_above_its_edge_and_not_below(decay):
    """Its recurrence with D = 1, which no second moment changes."""

    def run(curvature):
        x = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = torch.optim.AdamW([x], lr=0.05, betas=(0.9, 0.999), eps=0.0, weight_decay=decay)
        m, lr, b1 = 0.0, 0.05, 0.9
        value = 1.0
        for _ in range(4000):  # the same recurrence by hand, without bias correction
            m = b1 * m + (1 - b1) * curvature * value
            value = (1 - lr * decay) * value - lr * m
            if abs(value) > 1e6:
                break
        return abs(value), stability_threshold(optimizer)

    limit = run(1.0)[1]
    assert run(0.99 * limit)[0] < 1
    assert run(1.01 * limit)[0] > 1e3


def test_what_is_not_known_is_not_guessed():
    x = nn.Parameter(torch.ones(1))
    assert stability_threshold(torch.optim.Adagrad([x], lr=0.1)) is None
    assert (
        stability_threshold(torch.optim.Adam([x], lr=0.1, weight_decay=0.1)) is None
    )  # its decay is preconditioned, too
    assert stability_threshold(torch.optim.SGD([x], lr=0.0)) is None
    y = nn.Parameter(torch.ones(1))
    groups = [{"params": [x], "weight_decay": 0.0}, {"params": [y], "weight_decay": 0.1}]
    assert stability_threshold(torch.optim.SGD(groups, lr=0.1)) is None


def problem():
    torch.manual_seed(3)
    module = nn.Linear(4, 2).double()
    x = torch.randn(9, 4, dtype=torch.float64) * torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=torch.float64)
    y = torch.randn(9, 2, dtype=torch.float64)
    return EmpiricalRisk(module, squared_error, (x, y), block=4)


def dense(operator):
    return operator.product(torch.eye(len(operator.space), dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "diagonal", "shift"),
    [
        (lambda p: torch.optim.Adam(p, lr=0.01), lambda v: (v["exp_avg_sq"] / (1 - 0.999**3)).sqrt() + 1e-8, 0.0),
        (
            lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
            lambda v: (v["max_exp_avg_sq"] / (1 - 0.999**3)).sqrt() + 1e-8,
            0.0,
        ),
        (lambda p: torch.optim.RMSprop(p, lr=0.01), lambda v: v["square_avg"].sqrt() + 1e-8, 0.0),
        (lambda p: torch.optim.Adagrad(p, lr=0.01, weight_decay=0.2), lambda v: v["sum"].sqrt() + 1e-10, 0.2),
    ],
)
def test_the_preconditioned_hessian(make, diagonal, shift):
    risk = problem()
    optimizer = make(list(risk.module.parameters())[::-1])  # its order is not the space's
    for _ in range(3):
        optimizer.step(risk.closure())
    D = torch.cat([diagonal(optimizer.state[p]).reshape(-1) for p in risk.module.parameters()])
    H = dense(Hessian(risk))
    expected = torch.linalg.eigvals((H + shift * torch.eye(len(D), dtype=torch.float64)) / D[:, None]).real.max()
    scaled = preconditioned(Hessian(risk), optimizer, risk.space)
    torch.testing.assert_close(dense(scaled), dense(scaled).T)
    top = top_eigenvalues(scaled, 1, tolerance=1e-9)
    torch.testing.assert_close(top.largest.values[0], expected, rtol=1e-6, atol=0)


def test_no_preconditioner_is_an_error():
    risk = problem()
    with pytest.raises(ValueError, match="SGD has no diagonal"):
        preconditioned(Hessian(risk), torch.optim.SGD(risk.module.parameters(), lr=0.1), risk.space)
    with pytest.raises(ValueError, match="no state yet"):
        preconditioned(Hessian(risk), torch.optim.Adam(risk.module.parameters()), parameter_space(risk.module))
