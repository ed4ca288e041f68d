"""The stability threshold of each optimizer, against runs on quadratics just below and just above it."""

import numpy as np
import pytest
import torch
from torch import nn

from noiseless.analysis import stability_threshold
from noiseless.optim.registry import entry_of

SGD_OPTIONS = [
    {},
    {"weight_decay": 0.3},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.5, "nesterov": True, "weight_decay": 0.2},
]


BELOW = 1000
"""steps below a threshold: a run that grows as slowly as those above it, 1000-fold in 3000 steps, grows 10-fold"""


def growth(make, curvature, steps=3000, start=1.0):
    """|x / start| after the steps on curvature x^2 / 2, from x = start."""
    x = nn.Parameter(torch.full((1,), start, dtype=torch.float64))
    optimizer = make([x])
    for _ in range(steps):
        x.grad = curvature * x.detach().clone()
        optimizer.step()
        if abs(float(x.detach())) > 1e6 * start:
            break
    return abs(float(x.detach())) / start


@pytest.mark.parametrize("options", SGD_OPTIONS)
@pytest.mark.parametrize("lr", [0.1, 0.4])
def test_sgd_grows_just_above_its_threshold_and_not_below(options, lr):
    def make(parameters):
        return torch.optim.SGD(parameters, lr=lr, **options)

    limit = stability_threshold(make([nn.Parameter(torch.ones(1))]))
    assert growth(make, 0.99 * limit - 0.01 * options.get("weight_decay", 0), BELOW) < 1
    assert growth(make, 1.01 * limit) > 1e3


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.AdamW, {"weight_decay": 0.0}),
        (torch.optim.AdamW, {"weight_decay": 4.0}),
        (torch.optim.AdamW, {"weight_decay": 4.0, "betas": (0.5, 0.99), "amsgrad": True}),
        (torch.optim.Adam, {}),
        (torch.optim.Adam, {"weight_decay": 4.0, "decoupled_weight_decay": True}),
        (torch.optim.RMSprop, {}),
        (torch.optim.RMSprop, {"momentum": 0.5}),
    ],
)
@pytest.mark.parametrize("eps", [1.0, 30.0])
def test_adam_grows_just_above_its_threshold_and_not_below(kind, options, eps):
    """With gradients that are small beside eps, D = sqrt(v) + eps is constant: the Hessian is eps times D^-1 H.

    |x| stays below 1e-13 and the threshold is below 1e3, so sqrt(v) is below 1e-10 eps. The weight decay of 4 moves the
    threshold by lr decay / 2 = 10%, ten times the distance of the runs from it.
    """

    def make(parameters):
        optimizer = kind(parameters, lr=0.0, eps=eps, **options)
        parameters[0].grad = torch.zeros_like(parameters[0])
        for _ in range(360):  # until the bias correction 1 - 0.9**t of the mean is 1 to float64's precision
            optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.05
        return optimizer

    limit = stability_threshold(make([nn.Parameter(torch.ones(1))]))
    assert limit < 1e3
    assert growth(make, 0.99 * eps * limit, BELOW, start=1e-20) < 1
    assert growth(make, 1.01 * eps * limit, start=1e-20) > 1e3


PARTED = [*SGD_OPTIONS, {"momentum": 0.6, "weight_decay": 1.0}, {"momentum": 0.3, "dampening": 0.3}]


@pytest.mark.parametrize("options", PARTED)
@pytest.mark.parametrize("parts", [2, 3, 8])
def test_with_parts_the_newest_gradients_of_all_grow_just_above_the_edge(options, parts):
    """Each update renews the gradient of one part; the matrix of the recursion is that of torch's own steps."""
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([x], lr=0.1, **options)
    edge = stability_threshold(optimizer, parts)

    def radius(curvature):
        columns = []
        for column in np.eye(parts + 1):  # the last points, the newest first, and the momentum buffer
            with torch.no_grad():
                x.copy_(torch.tensor(column[:1]))
            optimizer.state[x]["momentum_buffer"] = torch.tensor(column[parts:])
            x.grad = torch.tensor([curvature * column[:parts].mean()])
            optimizer.step()
            buffer = optimizer.state[x]["momentum_buffer"] if options.get("momentum") else torch.zeros(1)
            columns.append([x.item(), *column[: parts - 1], buffer.item()])
        return abs(np.linalg.eigvals(np.array(columns).T)).max()

    assert radius(0.99 * edge) < 1 < radius(1.01 * edge)
    assert all(radius(share * edge) < 1 for share in np.linspace(0.05, 0.95, 19))


def test_the_edge_of_eight_parts_at_a_rate_of_a_tenth():
    sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    assert (stability_threshold(sgd), stability_threshold(sgd, 8)) == pytest.approx((20, 6.09), abs=0.005)


def test_an_unknown_threshold_is_none():
    x = nn.Parameter(torch.ones(1))
    assert stability_threshold(torch.optim.Adagrad([x], lr=0.1)) is None
    assert stability_threshold(torch.optim.Adagrad([x], lr=0.1)) is None
    assert stability_threshold(torch.optim.SGD([x], lr=0.0)) is None
    y = nn.Parameter(torch.ones(1))
    groups = [{"params": [x], "weight_decay": 0.0}, {"params": [y], "weight_decay": 0.1}]
    assert stability_threshold(torch.optim.SGD(groups, lr=0.1)) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.0, 0.9)),
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.0, 0.9), amsgrad=True),
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.0, 0.99), eps=0.01, weight_decay=0.0),
        lambda p: torch.optim.RMSprop(p, lr=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.1, centered=True, eps=0.1),
        lambda p: torch.optim.Adagrad(p, lr=0.1, eps=0.02),
    ],
)
def test_without_momentum_a_step_is_the_gradient_over_the_diagonal(make):
    x = nn.Parameter(torch.ones(5, dtype=torch.float64))
    optimizer = make([x])
    for step in range(4):
        before = x.detach().clone()
        x.grad = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(step)) * 3 ** (2 - step)
        optimizer.step()
        (group,) = optimizer.param_groups
        diagonal = entry_of(optimizer).diagonal(group, optimizer.state[x])
        # float64: a few roundings of numbers near 1
        torch.testing.assert_close(before - x.detach(), 0.1 * x.grad / diagonal, rtol=1e-12, atol=1e-15)
