"""Stable flows against closed forms and scipy, in float64."""

import flow_toys
import numpy as np
import problems
import pytest
import torch
from scipy.integrate import solve_ivp

from noiseless.analysis.flow import FlowState, FlowStoppedError, StableFlow
from noiseless.analysis.flowrule import FlowRule, flow_rule
from noiseless.objective import EmpiricalRisk, cross_entropy
from noiseless.optim import ScalarRMSprop

DESCENT = FlowRule("gradient descent")


def state_of(objective, nu=()):
    return FlowState(objective.space.theta.detach().double().clone(), torch.tensor(nu, dtype=torch.float64))


def quadratic(size=5):
    """A `[5, 5]` with eigenvalues 0.1 to 1.5, and `L = z A z / 2`."""
    q, _ = torch.linalg.qr(torch.randn(size, size, generator=problems.generator(8), dtype=torch.float64))
    A = q @ torch.diag(torch.linspace(0.1, 1.5, size, dtype=torch.float64)) @ q.T
    A = (A + A.T) / 2
    return A, flow_toys.objective(lambda z: z @ A @ z / 2, [1.0, -2.0, 0.5, 1.0, 3.0])


def advanced(flow, state, steps, lr):
    for _ in range(steps):
        state = flow.advance(state, lr)
    return state


def test_gradient_flow_of_a_quadratic_is_the_matrix_exponential():
    A, risk = quadratic()
    start, theta = state_of(risk), risk.space.theta.detach().clone()
    end = advanced(StableFlow(risk, DESCENT, tolerance=1e-5), start, 6, 0.9)
    expected = torch.linalg.matrix_exp(-6 * 0.9 * A) @ start.theta
    torch.testing.assert_close(end.theta, expected, rtol=0, atol=1e-4)
    assert end.time == 6
    assert torch.equal(risk.space.theta, theta)  # the module's parameters are as before


def test_the_error_falls_with_the_tolerance():
    """The estimated error of a substep, that of order 2, is of size h**3, as is the error of a flow of order 3."""
    A, risk = quadratic()
    start = state_of(risk)
    expected = torch.linalg.matrix_exp(-6 * 0.9 * A) @ start.theta
    errors = []
    for tolerance in (1e-2, 1e-3, 1e-4):
        end = advanced(StableFlow(risk, DESCENT, tolerance=tolerance), start, 6, 0.9)
        errors.append(float((end.theta - expected).norm()))
    assert errors[0] < 1e-2 * float(start.theta.norm())
    assert 4 < errors[0] / errors[1] < 25
    assert 4 < errors[1] / errors[2] < 25


def test_weight_decay_is_part_of_the_function():
    A, risk = quadratic()
    optimizer = torch.optim.SGD(risk.module.parameters(), lr=0.9, weight_decay=0.3)
    rule, nu = flow_rule(optimizer, risk.space)
    end = advanced(StableFlow(risk, rule, tolerance=1e-5), state_of(risk, nu.tolist()), 3, 0.9)
    expected = torch.linalg.matrix_exp(-3 * 0.9 * (A + 0.3 * torch.eye(5))) @ state_of(risk).theta
    torch.testing.assert_close(end.theta, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "nu"), [("RMSProp", [0.5, 0.2, 0.3, 1.0, 2.0]), ("scalar RMSProp", [2.0])])
def test_flows_with_a_second_moment_solve_their_equations(kind, nu):
    A, risk = quadratic()
    beta, eps, lr = 0.9, 1e-3, 0.2
    end = advanced(StableFlow(risk, FlowRule(kind, beta, eps), tolerance=1e-5), state_of(risk, nu), 5, lr)
    a = A.numpy()

    def equations(t, y):
        g, v = a @ y[:5], y[5:]
        square = g**2 if kind == "RMSProp" else np.array([g @ g])
        return np.concatenate([-lr * g / (np.sqrt(v) + eps), (1 - beta) / beta * (square - v)])

    start = np.concatenate([state_of(risk).theta.numpy(), nu])
    y = solve_ivp(equations, (0, 5), start, rtol=1e-10, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(end.theta.numpy(), y[:5], atol=1e-4)
    np.testing.assert_allclose(end.nu.numpy(), y[5:], atol=1e-4)


def test_in_a_frozen_metric_nu_stays():
    A, risk = quadratic()
    flow = StableFlow(risk, FlowRule("scalar RMSProp", 0.9), frozen=True, tolerance=1e-5)
    end = advanced(flow, state_of(risk, [4.0]), 5, 0.2)
    torch.testing.assert_close(
        end.theta, torch.linalg.matrix_exp(-5 * 0.1 * A) @ state_of(risk).theta, atol=1e-4, rtol=0
    )
    assert end.nu.item() == 4.0


def test_a_point_costs_a_pass_that_the_next_step_does_not_pay_again():
    _, risk = quadratic()
    flow = StableFlow(risk, DESCENT)
    point = flow.point(state_of(risk))
    assert flow.ledger.passes == 1
    assert point.loss == point.mean_loss == pytest.approx(risk.measure().loss)
    assert point.square == pytest.approx(float(risk.evaluate().gradient.square().sum()))
    flow.advance(state_of(risk), 0.5)
    assert (flow.ledger.passes - 1) % 3 == 0  # three for each substep


def test_goes_on_from_a_saved_state_with_the_same_bits():
    module, data = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, data, block=4)
    one = advanced(StableFlow(risk, DESCENT), state_of(risk), 6, 0.5)
    half = advanced(StableFlow(risk, DESCENT), state_of(risk), 3, 0.5)
    other = advanced(StableFlow(risk, DESCENT), FlowState(**half.tensors()), 3, 0.5)
    assert torch.equal(one.theta, other.theta)


def test_a_flow_that_is_too_stiff_or_infinite_stops():
    risk = flow_toys.objective(lambda z: 1e5 * z.square().sum() / 2 + z.sum(), [1.0, 2.0])
    with pytest.raises(FlowStoppedError, match="more than 300 gradients"):
        StableFlow(risk, DESCENT).advance(state_of(risk), 1.0)
    blows_up = flow_toys.objective(lambda z: -z.pow(4).sum(), [2.0])
    with pytest.raises(FlowStoppedError, match=r"not finite|no finite|gradients"):
        advanced(StableFlow(blows_up, DESCENT), state_of(blows_up), 5, 1.0)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "--momentum 0"),
        (lambda p: torch.optim.RMSprop(p, momentum=0.5), "--momentum 0"),
        (lambda p: torch.optim.RMSprop(p, centered=True), "no centered=True"),
        (lambda p: torch.optim.RMSprop(p, alpha=0.0), "alpha must be above 0"),
        (lambda p: torch.optim.Adam(p), "flows of Adam are not known"),
        (lambda p: torch.optim.SGD([{"params": p[:1], "lr": 0.2}, {"params": p[1:]}], lr=0.1), "differ in their"),
    ],
)
def test_optimizers_without_a_flow_are_refused(optimizer, message):
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, problems.points())
    with pytest.raises(ValueError, match=message):
        flow_rule(optimizer(list(module.parameters())), risk.space)


@pytest.mark.parametrize("kind", [torch.optim.RMSprop, ScalarRMSprop])
def test_the_start_of_nu_is_that_of_the_optimizers_next_step(kind):
    module = problems.perceptron()
    risk = EmpiricalRisk(module, cross_entropy, problems.points())
    optimizer = kind(module.parameters(), lr=0.01, alpha=0.8, weight_decay=0.1)
    for _ in range(3):
        optimizer.step(risk.closure())
    rule, nu = flow_rule(optimizer, risk.space)
    start = rule.start(nu, rule.decayed(risk.evaluate().gradient, risk.space.theta.detach()))
    before = risk.space.theta.detach().clone()
    g = rule.decayed(risk.evaluate().gradient, before)
    optimizer.step(risk.closure())
    _, after = flow_rule(optimizer, risk.space)
    torch.testing.assert_close(start, after)
    torch.testing.assert_close(
        risk.space.theta.detach(), before - g / rule.preconditioner(start, 0.01), atol=1e-7, rtol=0
    )
