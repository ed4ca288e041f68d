"""FISTA against its formulas written out, and against the bound of its paper."""

from __future__ import annotations

import math

import problems
import pytest
import torch
from torch import nn

from noiseless.optim import FISTA

CURVATURES = torch.logspace(-3, 0, 6, dtype=torch.float64)  # L = 1
X0 = problems.targets(1, 6, seed=3).flatten()


def run(steps, **settings):
    """The points y of FISTA on `f = sum c x**2 / 2`, over two parameters."""
    parts = [nn.Parameter(X0[:2].clone()), nn.Parameter(X0[2:].clone().view(2, 2))]
    optimizer = FISTA(parts, **settings)
    points = [X0]
    for _ in range(steps):
        for p, g in zip(parts, (CURVATURES * points[-1]).split([2, 4]), strict=True):
            p.grad = g.view_as(p)
        optimizer.step()
        points.append(torch.cat([p.detach().flatten() for p in parts]))
    return points


def reference(steps, lr, restart=False, decay=0.0):
    """Beck and Teboulle's algorithm, eqs. 4.1 to 4.3, with x and y; restarted by O'Donoghue and Candes' test."""
    x = y = X0
    t, points, xs, restarts = 1.0, [X0], [], 0
    for _ in range(steps):
        g = CURVATURES * y + decay * y
        x, before = y - lr * g, x
        if restart and g @ (x - before) > 0:
            t, y, restarts = 1.0, x, restarts + 1
        else:
            after = (1 + math.sqrt(1 + 4 * t * t)) / 2
            y = x + (t - 1) / after * (x - before)
            t = after
        points.append(y)
        xs.append(x)
    return points, xs, restarts


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_steps_equal_those_of_the_paper(restart, decay):
    expected, _, restarts = reference(200, 0.9, restart, decay)
    assert (restarts > 1) == restart
    points = run(200, lr=0.9, restart=restart, weight_decay=decay)
    for point, expected_point in zip(points, expected, strict=True):
        torch.testing.assert_close(point, expected_point, rtol=1e-10, atol=1e-12)


def test_values_stay_below_the_bound():
    # f(x_k) <= 2 L ||x_0||**2 / (k + 1)**2 with L = 1; gradient descent is above it from some k on
    _, xs, _ = reference(150, 1.0)
    for k, x in enumerate(xs, 1):
        assert CURVATURES @ (x * x) / 2 <= 2 * X0 @ X0 / (k + 1) ** 2
    y = run(150, lr=1.0)[-1]
    descent = X0 * (1 - CURVATURES) ** 150
    assert CURVATURES @ (y * y) < CURVATURES @ (descent * descent) / 3


def test_restarts_make_convergence_linear():
    # without restarts the error falls as 1 / k**2, with them as exp(-k sqrt(mu / L) / e or so): 1000 * 0.03 / e = 11
    errors = [run(1000, lr=1.0, restart=restart)[-1].norm() / X0.norm() for restart in (False, True)]
    assert errors[1] < math.exp(-11) < errors[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr must be"), ({"restart": "gradient"}, "restart must be True or False"),
        ({"weight_decay": float("nan")}, "weight_decay must be"),
    ],
)  # fmt: skip
def test_wrong_numbers_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FISTA([nn.Parameter(X0.clone())], **settings)
