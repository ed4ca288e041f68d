"""Central flows of functions whose oscillation is known in closed form, and of a small network at the edge."""

from itertools import pairwise

import flow_toys
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from sklearn.datasets import load_digits
from torch import nn

from noiseless.analysis import Hessian, top_eigenvalues
from noiseless.analysis.centralflow import CentralFlow
from noiseless.analysis.flow import FlowState, FlowStoppedError, StableFlow
from noiseless.analysis.flowrule import FlowRule
from noiseless.objective import EmpiricalRisk

DESCENT = FlowRule("gradient descent")
LR = 0.5


def state_of(objective, nu=()):
    return FlowState(objective.space.theta.detach().double().clone(), torch.tensor(nu, dtype=torch.float64))


def advanced(flow, state, steps, lr=LR):
    for _ in range(steps):
        state = flow.advance(state, lr)
    return state


def descent(risk, steps, lr=LR):
    """The points of gradient descent, float64 `[steps + 1, P]`, and their losses."""
    theta, points, losses = risk.space.theta.detach().clone(), [], []
    for _ in range(steps + 1):
        with risk.space.at(theta):
            evaluation = risk.evaluate()
        points.append(theta)
        losses.append(evaluation.loss)
        theta = theta - lr * evaluation.gradient
    return torch.stack(points), losses


def test_at_a_stable_rate_it_is_gradient_flow():
    A = torch.diag(torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64))  # below 2 / lr = 4
    risk = flow_toys.objective(lambda z: z @ A @ z / 2, [1.0, -2.0, 0.5])
    start = state_of(risk)
    expected = torch.linalg.matrix_exp(-3 * LR * A) @ start.theta
    torch.testing.assert_close(
        advanced(CentralFlow(risk, DESCENT, substeps=32), start, 3).theta, expected, atol=1e-3, rtol=0
    )
    # Heun's method is of order 2: twice the substeps, a quarter of the error
    errors = [
        float((advanced(CentralFlow(risk, DESCENT, substeps=n), start, 3).theta - expected).norm()) for n in (6, 12)
    ]
    assert 3.2 < errors[0] / errors[1] < 5


def test_at_the_edge_the_oscillation_is_that_of_the_closed_form():
    """`L = y x**2 / 2 - a y` at x = 0, y = 2 / lr: dy / dt = lr (a - sigma**2 / 2) is 0 where sigma**2 = 2 a.

    X is `sigma**2 P = 2 a / lr`. The mean loss is `-a y + <Sigma, H> / 2 = -2 a / lr + a (2 / lr) = 0`, and the mean
    squared norm of the gradient is `a**2 + y**2 sigma**2 = a**2 + 8 a / lr**2`.
    """
    a = 0.03
    risk = flow_toys.objective(flow_toys.ridge([a]), [0.0, 2 / LR])
    flow = CentralFlow(risk, DESCENT)
    state = advanced(flow, state_of(risk), 20)
    point = flow.point(state, LR)
    torch.testing.assert_close(state.theta, torch.tensor([0.0, 2 / LR], dtype=torch.float64), atol=1e-9, rtol=0)
    assert point.eigenvalues[0] == pytest.approx(2, abs=1e-9)
    assert point.variance == pytest.approx(2 * a)
    assert point.oscillation == pytest.approx([2 * a / LR])
    assert point.mean_loss == pytest.approx(0, abs=1e-9)
    assert point.square == pytest.approx(a**2)
    assert point.mean_square == pytest.approx(a**2 + 8 * a / LR**2)


def test_below_the_edge_the_curvature_grows_and_then_stays():
    """dy / dt = lr a until y = 2 / lr, and 0 from then on."""
    a, below = 0.03, 0.15
    risk = flow_toys.objective(flow_toys.ridge([a]), [0.0, 2 / LR - below])
    flow = CentralFlow(risk, DESCENT)
    after = advanced(flow, state_of(risk), 4)
    assert float(after.theta[1]) == pytest.approx(2 / LR - below + 4 * LR * a)
    assert flow.point(after, LR).variance == pytest.approx(0, abs=1e-9)
    end = advanced(flow, after, 16)
    assert float(end.theta[1]) == pytest.approx(2 / LR, abs=1e-9)


def test_gradient_descent_is_at_its_mean():
    """Gradient descent on the same function, beside the flows over 200 steps at the edge.

    The flow predicts the mean path (y at 2 / lr), the mean loss and the variance of x. Gradient flow goes on along y.
    """
    a, steps = 0.01, 200
    risk = flow_toys.objective(flow_toys.ridge([a]), [0.1, 2 / LR])
    points, losses = descent(risk, steps)
    start = state_of(risk)
    central = advanced(CentralFlow(risk, DESCENT), start, 6)  # stationary from then on
    stable = advanced(StableFlow(risk, DESCENT), start, steps)
    mean = points[40:].mean(0)
    assert float((central.theta - mean).norm()) < 0.03
    assert float((stable.theta - points[-1]).norm()) > 0.9
    point = CentralFlow(risk, DESCENT).point(central, LR)
    assert point.variance == pytest.approx(float(points[40:, 0].square().mean()), rel=0.1)
    # the means are over two turns of the slow cycle, so they are rough; gradient flow's loss is at -0.05
    assert point.mean_loss == pytest.approx(np.mean(losses[40:]), abs=0.003)


def test_two_directions_at_the_edge_and_one_below():
    # each curvature has its own drive: Sigma = diag(2 a_1, 2 a_2, 0)
    risk = flow_toys.objective(flow_toys.ridge([0.01, 0.04, 0.01]), [0.0, 0.0, 0.0, 2 / LR, 2 / LR, 0.5])
    flow = CentralFlow(risk, DESCENT)
    state = advanced(flow, state_of(risk), 5)
    point = flow.point(state, LR)
    expected = torch.tensor([0, 0, 0, 2 / LR, 2 / LR, 0.5 + 5 * LR * 0.01], dtype=torch.float64)
    torch.testing.assert_close(state.theta, expected, atol=1e-6, rtol=0)
    assert point.variance == pytest.approx(2 * 0.05, rel=1e-5)
    assert point.oscillation == pytest.approx([2 * 0.04 / LR, 2 * 0.01 / LR], rel=1e-4)
    assert not flow.crowded


def test_a_falling_curvature_takes_no_oscillation():
    # the drive is negative: y falls from the edge, and complementarity leaves Sigma at 0
    risk = flow_toys.objective(flow_toys.ridge([-0.03]), [0.0, 2 / LR])
    flow = CentralFlow(risk, DESCENT)
    assert flow.point(state_of(risk), LR).variance == 0
    assert float(advanced(flow, state_of(risk), 4).theta[1]) == pytest.approx(2 / LR - 4 * LR * 0.03)


def test_a_rate_that_changes_moves_the_edge():
    risk = flow_toys.objective(flow_toys.ridge([0.03]), [0.0, 2 / LR])
    flow, state = CentralFlow(risk, DESCENT), state_of(risk)
    rates = [0.5, 0.51, 0.52, 0.53]
    for lr, following in pairwise(rates):
        state = flow.advance(state, lr, following)
        assert float(state.theta[1]) == pytest.approx(2 / following, abs=1e-9)


@pytest.mark.parametrize("kind", ["scalar RMSProp", "RMSProp"])
def test_of_rmsprop_keeps_the_effective_curvature_at_the_edge(kind):
    """`L = y x**2 / 2 - a y` at x = 0: nu and y move so that `y lr / sqrt(nu_x) = 2`, and sigma**2 follows.

    Scalar: g = (0, -a), so d nu / dt = c (a**2 + y**2 s - nu) and dy / dt = lr / sqrt(nu) (a - s / 2), s = sigma**2.
    `y = 2 sqrt(nu) / lr` is kept where dy / dt = (d nu / dt) / (lr sqrt(nu)), so
        lr**2 (a - s / 2) = c (a**2 + y**2 s - nu),   s = (lr**2 a + c (nu - a**2)) / (lr**2 / 2 + c y**2).
    RMSProp: nu_x has y**2 s, nu_y has a**2:
        lr / sqrt(nu_y) (a - s / 2) = c (y**2 s - nu_x) / (lr sqrt(nu_x)).
    """
    a, lr, beta = 0.05, 0.1, 0.95
    c, nu = (1 - beta) / beta, 0.04
    nus = [nu] if kind == "scalar RMSProp" else [nu, 0.09]
    y0 = 2 * nu**0.5 / lr
    risk = flow_toys.objective(flow_toys.ridge([a]), [0.0, y0])

    def variance(y, v):
        if kind == "scalar RMSProp":
            return (lr**2 * a + c * (v[0] - a**2)) / (lr**2 / 2 + c * y**2)
        k = lr**2 * (v[0] / v[1]) ** 0.5
        return (k * a + c * v[0]) / (k / 2 + c * y**2)

    def equations(t, z):
        y, v = z[0], z[1:]
        s = variance(y, v)
        square = [a**2 + y**2 * s] if kind == "scalar RMSProp" else [y**2 * s, a**2]
        return [lr / v[-1] ** 0.5 * (a - s / 2), *(c * (np.array(square) - v))]

    expected = solve_ivp(equations, (0, 10), [y0, *nus], rtol=1e-9, atol=1e-12).y[:, -1]
    flow = CentralFlow(risk, FlowRule(kind, beta), substeps=8, tolerance=1e-6)
    state = advanced(flow, state_of(risk, nus), 10, lr)
    point = flow.point(state, lr)
    assert point.eigenvalues[0] == pytest.approx(2, abs=2e-3)
    np.testing.assert_allclose(state.theta.numpy(), [0, expected[0]], atol=3e-3 * y0)
    np.testing.assert_allclose(state.nu.numpy(), expected[1:], rtol=6e-3)
    assert point.variance == pytest.approx(variance(expected[0], expected[1:]), rel=2e-2)


def test_with_weight_decay_the_edge_is_that_of_the_decayed_function():
    # H + w I at 2 / lr: y stops at 2 / lr - w. dy / dt = lr (a - w y - sigma**2 / 2)
    a, w = 0.5, 0.05
    y = 2 / LR - w
    risk = flow_toys.objective(flow_toys.ridge([a]), [0.0, y])
    decay = torch.full((2,), w, dtype=torch.float64)
    flow = CentralFlow(risk, FlowRule("gradient descent", decay=decay))
    state = advanced(flow, state_of(risk), 5)
    point = flow.point(state, LR)
    s = 2 * (a - w * y)
    assert float(state.theta[1]) == pytest.approx(y, abs=1e-9)
    assert point.variance == pytest.approx(s)
    assert point.mean_loss == pytest.approx(-a * y + s * y / 2)  # L without the decay


def test_of_a_network_at_the_edge_it_is_nearer_to_the_weights_than_gradient_flow():
    """64 -> 6 -> 1 on 40 digits, close to the edge at the start and at it for three of 20 steps.

    Then the weights have moved by 1.17; the central flow is 0.14 from their mean, gradient flow 0.30.
    """
    digits, rng = load_digits(), torch.Generator().manual_seed(1)
    binary = digits.target < 2
    x = torch.tensor(digits.data[binary][:40] / 16 - 0.3)
    y = torch.tensor(digits.target[binary][:40] * 2.0 - 1)
    model = nn.Sequential(nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    with torch.no_grad():
        for p in model.parameters():
            fan = 64 if p.shape[0] == 6 else 6
            p.copy_((2 * torch.rand(p.shape, generator=rng, dtype=torch.float64) - 1) / fan**0.5)
    risk = EmpiricalRisk(model, lambda output, target: (output[:, 0] - target).square() / 2, (x, y))
    sharpness = float(top_eigenvalues(Hessian(risk)).largest.values[0])
    lr, steps = 1.85 / sharpness, 20
    points, _ = descent(risk, steps + 1, lr)
    mean = (points[-3] + 2 * points[-2] + points[-1]) / 4
    start, oscillated = state_of(risk), []
    flow, state = CentralFlow(risk, DESCENT), start
    for _ in range(steps):
        oscillated.append(flow.point(state, lr).variance > 0)
        state = flow.advance(state, lr)
    stable = advanced(StableFlow(risk, DESCENT), start, steps, lr)
    central, smooth = (float((theta - mean).norm()) for theta in (state.theta, stable.theta))
    assert any(oscillated)
    assert central < 0.6 * smooth


def test_an_unstable_quadratic_has_no_central_flow():
    risk = flow_toys.objective(lambda z: 10 * z.square().sum() / 2, [1.0, 0.5])
    with pytest.raises(FlowStoppedError, match="no oscillation keeps the curvature"):
        CentralFlow(risk, DESCENT).advance(state_of(risk), LR)
