"""The gradient of an eigenvalue, against torch.func on a dense Hessian; and the split of its change along a step."""

import problems
import pytest
import torch
from torch.func import functional_call, grad, jacrev

from noiseless.analysis import eigenvalue_gradient, sharpening
from noiseless.objective import EmpiricalRisk, GradientPenalty, cross_entropy


def dense(net, x, y, strength=0.0, blocks=((0, 11),)):
    """theta -> value of the (penalised) objective over blocks, by torch.func; lr = 0.4."""
    names, shapes = zip(*((n, p.shape) for n, p in net.named_parameters()), strict=True)

    def split(theta):
        parts = theta.split([shape.numel() for shape in shapes])
        return {n: part.reshape(shape) for n, part, shape in zip(names, parts, shapes, strict=True)}

    def value(theta):
        total = 0.0
        for start, end in blocks:

            def loss(t, start=start, end=end):
                return torch.nn.functional.cross_entropy(functional_call(net, split(t), x[start:end]), y[start:end])

            part = loss(theta)
            if strength:
                part = part + 0.4 / 8 * strength * grad(loss)(theta).square().sum()
            total = total + (end - start) / len(x) * part
        return total

    return value


@pytest.mark.parametrize("block", [4, 11])
def test_it_is_the_third_derivative_along_the_eigenvector_twice(block):
    net, (x, y) = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(net, cross_entropy, (x, y), block=block)
    theta, value = risk.space.theta.detach().clone(), dense(net, x, y)
    values, vectors = torch.linalg.eigh(jacrev(grad(value))(theta))
    assert float(values[-1] - values[-2]) > 1e-3
    slope = eigenvalue_gradient(risk, vectors[:, -1])
    expected = grad(lambda t: vectors[:, -1] @ (jacrev(grad(value))(t) @ vectors[:, -1]))(theta)
    torch.testing.assert_close(slope, expected)
    h = 1e-4  # and of the eigenvalue itself, whose vector moves: central difference, error h^2
    d = torch.randn(len(theta), generator=problems.generator(5), dtype=torch.float64)
    ahead, behind = (torch.linalg.eigvalsh(jacrev(grad(value))(theta + s * h * d))[-1] for s in (1, -1))
    assert float(slope @ d) == pytest.approx(float((ahead - behind) / (2 * h)), rel=1e-5)


def test_a_penalty_on_block_gradients_counts():
    net, (x, y) = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(net, cross_entropy, (x, y), block=6)
    objective = GradientPenalty(risk, strength=3.0, lr=0.4, method="exact")
    theta, value = risk.space.theta.detach().clone(), dense(net, x, y, 3.0, ((0, 6), (6, 11)))
    u = torch.randn(len(theta), generator=problems.generator(6), dtype=torch.float64)
    expected = grad(lambda t: u @ grad(lambda s: grad(value)(s) @ u)(t))(theta)
    torch.testing.assert_close(eigenvalue_gradient(objective, u), expected)
    with pytest.raises(ValueError, match="couples all blocks"):
        eigenvalue_gradient(GradientPenalty(risk, strength=0.0, full_strength=1.0, lr=0.4), u)


def test_batch_norm_is_differentiated_by_blocks():
    """Central differences of u . H u, with H products of the same objective: error h^2."""
    net, (x, y) = problems.with_batch_norm(), problems.points()
    risk = EmpiricalRisk(net, cross_entropy, (x, y), block=6, norm_block=3)
    theta = risk.space.theta.detach().clone()
    u, d = torch.randn(2, len(theta), generator=problems.generator(7), dtype=torch.float64)

    def curvature(at):
        with risk.space.at(at):
            return float(u @ risk.hvp(u[None])[0])

    h = 1e-5
    expected = (curvature(theta + h * d) - curvature(theta - h * d)) / (2 * h)
    assert float(eigenvalue_gradient(risk, u, "block") @ d) == pytest.approx(expected, rel=1e-6)


def test_the_causes_of_a_gradient_step_on_a_valley_are_known():
    """f = a x^2 (1 + b y) / 2 + c y at (x, 0): lambda = a (1 + b y) up to the coupling a b x, and u = e_x at x = 0.

    At u = e_x and x = 0 + e: grad lambda = (0, a b), g = (a e, c + a b e^2 / 2). So with the step -lr g: along u
    nothing, as grad lambda is orthogonal to u; self-stabilisation -lr (e^2 / 2) (a b)^2; drift -lr a b c: sharpening
    where b c < 0.
    """
    a, b, c, e, lr = 10.0, 0.7, -0.3, 0.2, 0.05
    slope = torch.tensor([0.0, a * b], dtype=torch.float64)
    u, g = torch.tensor([[1.0, 0.0], [a * e, c + a * b * e * e / 2]], dtype=torch.float64)
    theta = torch.tensor([e, 0.5], dtype=torch.float64)
    momentum, decay = torch.tensor([0.01, -0.02], dtype=torch.float64), -lr * 0.1 * theta
    step = -lr * g + decay + momentum
    result = sharpening(slope, u, a, g, {"decay": decay}, step, torch.full((2,), lr, dtype=torch.float64))
    assert result.causes == pytest.approx({
        "gradient drift": -lr * a * b * c,
        "oscillation": 0.0,
        "self-stabilisation": -lr * e * e / 2 * (a * b) ** 2,
        "decay": -lr * 0.1 * 0.5 * a * b,
        "memory": -0.02 * a * b,
    })  # fmt: skip
    assert result.total == pytest.approx(sum(result.causes.values()))
    assert result.total == pytest.approx(float(slope @ step))
    assert (result.offset, result.gradient_square) == pytest.approx((e, (a * b) ** 2))
    assert result.flow == pytest.approx(-a * b * float(g[1]))
    assert result.alignment == pytest.approx(-float(g[1] / g.norm()))
    unsplit = sharpening(slope, u, a, g, {}, step)
    assert unsplit.causes == pytest.approx({"step": result.total})


def test_along_the_eigenvector_the_slope_is_that_of_the_oscillation():
    """A slope along u: all of it is oscillation, and alternates with the gradient's sign."""
    u = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for sign in (1, -1):
        g = torch.tensor([sign * 2.0, 0.0], dtype=torch.float64)
        result = sharpening(3 * u, u, 4.0, g, {}, -0.1 * g, torch.full((2,), 0.1, dtype=torch.float64))
        assert result.causes["oscillation"] == pytest.approx(-0.1 * 2 * sign * 3)
        assert result.causes["gradient drift"] == pytest.approx(0)
