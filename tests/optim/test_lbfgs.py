"""Damped L-BFGS against dense matrices, on negative curvature, and with a line search."""

from __future__ import annotations

import itertools

import problems
import pytest
import torch
from torch import Tensor, nn

from noiseless.optim import DampedLBFGS, Searched, StrongWolfeSearch, make_line_search


def dense(pairs: list[tuple[Tensor, Tensor]], scale: float, n: int) -> Tensor:
    """H by the BFGS formula, Nocedal and Wright eq. 6.17, from `scale * I`, pair by pair."""
    H, unit = scale * torch.eye(n).double(), torch.eye(n).double()
    for s, y in pairs:
        rho = 1 / (s @ y)
        left = unit - rho * torch.outer(s, y)
        H = left @ H @ left.T + rho * torch.outer(s, s)
    return H


def reference(f, x: Tensor, steps: int, lr: float, history: int, damping: float = 0.2):
    """The damped method (procedure 18.2) with dense matrices, B by inversion: points, and which pairs were damped."""
    points, damped, pairs, before, H = [x], [], [], None, None
    for _ in range(steps):
        point = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(f(point), point)
        if before is None:
            H = torch.eye(len(x)).double() / max(1.0, float(g.norm()))
        else:
            s, y = x - before[0], g - before[1]
            Bs = torch.linalg.inv(H) @ s
            damped.append(bool(s @ y < damping * (s @ Bs)))
            if damped[-1]:
                phi = (1 - damping) * (s @ Bs) / (s @ Bs - s @ y)
                y = phi * y + (1 - phi) * Bs
            pairs = [*pairs, (s, y)][-history:]
            H = dense(pairs, float(s @ y / (y @ y)), len(x))
        before = x, g
        x = x - lr * H @ g
        points.append(x)
    return points, damped


def run(f, x: Tensor, steps: int, wrap=lambda optimizer: optimizer, **settings):
    """The points of the optimizer over two parameters of different shapes, and the optimizer."""
    parts = [nn.Parameter(x[:2].clone()), nn.Parameter(x[2:].clone().view(1, -1))]
    optimizer = wrap(DampedLBFGS(parts, **settings))

    def closure():
        optimizer.zero_grad()
        value = f(torch.cat([p.flatten() for p in parts]))
        value.backward()
        return value.detach()

    points = [x]
    for _ in range(steps):
        optimizer.step(closure)
        points.append(torch.cat([p.detach().flatten() for p in parts]))
    return points, optimizer


A = torch.diag(torch.tensor([0.05, 0.3, 1.0, 4.0, 10.0]).double())
X0 = problems.targets(1, 5, seed=3).flatten()


def bowl(x: Tensor) -> Tensor:
    return x @ A @ x / 2


def wells(x: Tensor) -> Tensor:
    """`sum (x**2 - 1)**2 / 4` and a coupling: wells at about +-1, negative curvature where |x| < 0.57."""
    return ((x * x - 1) ** 2).sum() / 4 + 0.1 * x[:-1] @ x[1:]


@pytest.mark.parametrize(("f", "x"), [(bowl, torch.tensor([1, 0.05, 1e-3, 1e-4, 1e-5]).double()), (wells, X0 / 4)])
@pytest.mark.parametrize("history", [2, 10])
def test_steps_are_those_of_dense_matrices(f, x, history):
    expected, damped = reference(f, x, 8, 0.5, history)  # the bowl is flatter there than the first guess, 1
    points, _ = run(f, x, 8, lr=0.5, history_size=history)
    for point, expected_point in zip(points, expected, strict=True):
        torch.testing.assert_close(point, expected_point, rtol=1e-8, atol=1e-10)  # inverses of a condition of 1e3 or so
    assert any(damped)


def test_without_damping_it_is_plain_bfgs_on_a_quadratic():
    # 1e-12 of B's curvature is never undercut by a quadratic of condition 200
    expected, damped = reference(bowl, X0, 8, 1.0, 10, damping=1e-12)
    points, _ = run(bowl, X0, 8, lr=1.0, damping=1e-12)
    assert not any(damped)
    torch.testing.assert_close(points[-1], expected[-1], rtol=1e-8, atol=1e-10)


def test_it_goes_down_where_plain_updates_would_go_up():
    x = torch.tensor([0.05, -0.04, 0.03, 0.02, -0.05]).double()  # near the top, all curvatures negative
    points, _ = run(wells, x, 2, lr=0.1)
    slopes = [torch.func.grad(wells)(point) for point in points]
    s, y = points[1] - points[0], slopes[1] - slopes[0]
    assert s @ y < 0
    plain = -dense([(s, y)], float(s @ y / (y @ y)), 5) @ slopes[1]
    assert slopes[1] @ plain > 0  # up
    assert slopes[1] @ (points[2] - points[1]) < 0
    assert wells(points[2]) < wells(points[1]) < wells(points[0])


@pytest.mark.parametrize("kind", ["armijo", "wolfe"])
def test_with_a_search_it_finds_the_wells(kind):
    x = torch.tensor([0.05, -0.04, 0.03, 0.02, -0.05]).double()
    points, optimizer = run(wells, x, 40, lambda base: Searched(base, make_line_search(kind)), lr=1.0)
    values = [float(wells(point)) for point in points]
    assert all(after <= before for before, after in itertools.pairwise(values))
    assert torch.func.grad(wells)(points[-1]).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(torch.func.jacrev(torch.func.grad(wells))(points[-1])).min() > 0  # a minimum
    assert optimizer.counts["fallbacks"] == 0  # its directions go down by themselves


def test_on_a_quadratic_with_a_search_it_is_superlinear():
    # Steepest descent needs about 200 steps a digit here (its rate is 1 - 2 / 200)
    points, _ = run(bowl, X0, 25, lambda base: Searched(base, StrongWolfeSearch()), lr=1.0)
    assert points[-1].norm() < 1e-6 * X0.norm()


def test_the_decay_belongs_to_the_function():
    plain, _ = run(lambda x: bowl(x) + 0.15 * x @ x, X0, 6, lr=0.5)
    decayed, _ = run(bowl, X0, 6, lr=0.5, weight_decay=0.3)
    torch.testing.assert_close(decayed[-1], plain[-1], rtol=1e-10, atol=1e-12)


def test_a_step_of_length_zero_adds_no_pair():
    parts = [nn.Parameter(X0.clone())]
    optimizer = DampedLBFGS(parts, lr=0.0)
    for lr in (0.0, 0.0, 0.5, 0.5):
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        bowl(parts[0]).backward()
        optimizer.step()
    assert len(optimizer.state[parts[0]]["S"]) == 1  # of the third step, added in the fourth
    assert torch.isfinite(parts[0]).all()


def test_at_a_stationary_point_it_stays():
    points, optimizer = run(bowl, torch.zeros(5).double(), 3, lr=1.0)
    assert all(torch.equal(point, points[0]) for point in points)
    assert all(len(state["S"]) == 0 for state in optimizer.state.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr must be"), ({"history_size": 0}, "history_size must be a whole number"),
        ({"damping": 1.0}, "damping must be a number between 0 and 1, not 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
    ],
)  # fmt: skip
def test_wrong_numbers_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DampedLBFGS([nn.Parameter(X0.clone())], **settings)
