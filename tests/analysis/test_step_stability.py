"""The matrix and the edge of steps with factors, against the steps themselves on quadratics, in float64."""

import pytest
import torch
from torch import nn

from noiseless.analysis import step_stability
from noiseless.objective import parameter_space
from noiseless.optim import adaptive_clip, chain, clip_norm, lars, multiplicative_noise, norm_bias
from noiseless.optim.transforms import Linear

SIZE = 6


class Quadratic:
    """An operator with a dense matrix, on the parameters of a module."""

    def __init__(self, module, matrix):
        self.space, self.matrix = parameter_space(module), matrix

    def product(self, V):
        return V @ self.matrix

    def passes(self, vectors):
        return float(vectors)


def module():
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)).double()


def matrix(scale=1.0):
    rng = torch.Generator().manual_seed(2)
    A = torch.randn(SIZE, SIZE, generator=rng, dtype=torch.float64)
    return scale * (A @ A.T + torch.eye(SIZE, dtype=torch.float64))


def dense(stability):
    return stability.operator.product(torch.eye(SIZE, dtype=torch.float64))


def radius(step, numbers):
    """The spectral radius of a linear map of `numbers` numbers."""
    columns = [step(column) for column in torch.eye(numbers, dtype=torch.float64)]
    return float(torch.linalg.eigvals(torch.stack(columns, 1)).abs().max())


FACTOR = torch.tensor([1.0, 0.3, 2.0, 0.7, 0.5, 1.4], dtype=torch.float64)
DECAY = torch.tensor([0.0, 0.0, 0.4, 0.4, 0.0, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.8}, {"momentum": 0.6, "nesterov": True}])
@pytest.mark.parametrize("decays", [(0.0, 0.0), (0.5, 0.5), (0.3, 0.0)])
@pytest.mark.parametrize("rates", [(0.1, 0.1), (0.1, 0.03)])
def test_sgd_with_factors_grows_from_its_edge_on(options, decays, rates):
    """The map of torch's own steps, transformed by `F (g + W theta)`, on H scaled to just below and above the edge.

    H counts beside the decays, so it is searched for by bisection: eigenvalue of A = edge.
    """
    net = module()
    layers = list(net.parameters())
    groups = [{"params": [p], "lr": lr, "weight_decay": w} for p, lr, w in zip(layers, rates, decays, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=0.1, **options)
    linear = Linear(FACTOR, DECAY)

    def excess(scale):
        stability = step_stability(Quadratic(net, matrix(scale)), optimizer, parameter_space(net), linear)
        A = dense(stability)
        torch.testing.assert_close(A, A.T)
        return float(torch.linalg.eigvalsh(A)[-1]) - stability.edge

    def map_of(scale):
        def step(numbers):
            theta, buffer = numbers[:SIZE], numbers[SIZE:]
            parameter_space(net).theta.copy_(theta)
            gradient = FACTOR * (matrix(scale) @ theta + DECAY * theta)
            for p, b in zip(layers, buffer.split([4, 2]), strict=True):
                optimizer.state[p]["momentum_buffer"] = b.reshape(p.shape).clone()
            parameter_space(net).set_gradient(gradient)
            optimizer.step()
            buffers = [optimizer.state[p]["momentum_buffer"].reshape(-1) for p in layers]
            return torch.cat([parameter_space(net).theta.detach().clone(), *buffers])

        return radius(step, 2 * SIZE)

    low, high = 1e-3, 100.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    if not options.get("momentum"):  # torch has no buffer then: what the map returns for it is what it was given
        optimizer.param_groups[0]["momentum"] = 0
    assert map_of(0.99 * low) <= 1 + 1e-9 < map_of(1.01 * low)


def test_decoupled_decays_that_differ_move_the_edge():
    """AdamW without memory of squares, D = eps: `(1 - lr w_i)` on the diagonal, against the dense map's radius."""
    net = module()
    layers = list(net.parameters())
    groups = [{"params": [p], "weight_decay": w} for p, w in zip(layers, (4.0, 0.0), strict=True)]
    optimizer = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.999), eps=1.0)
    parameter_space(net).set_gradient(torch.full((SIZE,), 1e-12, dtype=torch.float64))
    optimizer.step()
    W = torch.tensor([4.0] * 4 + [0.0] * 2, dtype=torch.float64)

    def map_of(scale):
        def step(numbers):
            theta, mean = numbers[:SIZE], numbers[SIZE:]
            mean = 0.9 * mean + 0.1 * matrix(scale) @ theta
            return torch.cat([(1 - 0.05 * W) * theta - 0.05 * mean, mean])

        return radius(step, 2 * SIZE)

    def excess(scale):
        stability = step_stability(Quadratic(net, matrix(scale)), optimizer, parameter_space(net))
        return float(torch.linalg.eigvalsh(dense(stability))[-1]) - stability.edge

    low, high = 1e-3, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    assert map_of(0.995 * low) < 1 < map_of(1.005 * low)  # with one decay for all it would be 5 to 10 % elsewhere


def test_a_clipped_run_oscillates_at_the_limit_over_the_length():
    """f = 4 x + (a / 2) y^2 with y small: clipped to c, y has the rate lr c / 4, and the edge is 8 / (lr c)."""
    net = nn.Linear(2, 1, bias=False).double()
    space, clip = parameter_space(net), clip_norm(0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def growth(a):
        space.theta.copy_(torch.tensor([0.0, 1e-6], dtype=torch.float64))
        for step in range(300):
            gradient = torch.tensor([4.0, a * float(space.theta[1])], dtype=torch.float64)
            space.set_gradient(clip.update(gradient, {}, space.theta, step)[0])
            optimizer.step()
        return abs(float(space.theta[1])) / 1e-6

    gradient = torch.tensor([4.0, 1e-6], dtype=torch.float64)
    linear = clip.linear(gradient, {}, space.theta, 0)
    stability = step_stability(Quadratic(net, torch.diag(torch.tensor([0.0, 1.0]).double())), optimizer, space, linear)
    edge = stability.edge / float(torch.linalg.eigvalsh(stability.operator.product(torch.eye(2).double()))[-1])
    assert edge == pytest.approx(160, rel=1e-6)
    assert growth(0.99 * edge) < 0.1 < 10 < growth(1.01 * edge)


@pytest.mark.parametrize(
    "make",
    [
        lambda space: multiplicative_noise(0.4, 7),
        lambda space: clip_norm(1e3),
        lambda space: chain(lars(0.1, space, 0.3, False), multiplicative_noise(0.4, 7)),
        lambda space: chain(multiplicative_noise(0.4, 7), lars(0.1, space, 0.3)),
        lambda space: chain(lars(0.1, space, 0.3), lars(0.2, space, 0.1)),
    ],
)
def test_the_linear_part_gives_the_transformed_gradient(make):
    """Each of these is `F (g + W theta)` with the ratios of this gradient, so applying the linear part gives it."""
    net = module()
    space = parameter_space(net)
    transform, theta = make(space), space.theta.detach()
    gradient = torch.randn(SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    state = transform.init(theta)
    linear = transform.linear(gradient, state, theta, 3)
    expected, _ = transform.update(gradient, state, theta, 3)
    torch.testing.assert_close(linear.factor * (gradient + linear.decay * theta), expected)


def test_adaptive_clip_has_the_factors_of_its_units():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).double()
    space = parameter_space(net)
    clip, gradient = adaptive_clip(0.01, space), torch.ones(len(space), dtype=torch.float64)
    linear = clip.linear(gradient, {}, space.theta, 0)
    torch.testing.assert_close(linear.factor, clip.update(gradient, {}, space.theta, 0)[0])
    assert (linear.factor < 1).sum() == 8  # weights and biases of the first layer; the last one is not clipped


def test_what_is_not_known_says_why():
    net = module()
    space, operator = parameter_space(net), Quadratic(net, matrix())
    gradient, theta = torch.ones(SIZE, dtype=torch.float64), space.theta
    biased = chain(clip_norm(0.1), norm_bias(0.1, 1.0))
    assert biased.linear(gradient, biased.init(theta), theta, 0) is None
    first, last = net.parameters()
    groups = [{"params": [first], "momentum": 0.9}, {"params": [last]}]
    for optimizer, words in (
        (torch.optim.Adagrad(net.parameters()), "Adagrad is not known"),
        (torch.optim.Adam(net.parameters()), "before its first step"),
        (torch.optim.SGD(net.parameters(), lr=0.0), "rate is 0"),
        (torch.optim.SGD(groups, lr=0.1), "differ in momentum"),
    ):
        stability = step_stability(operator, optimizer, space)
        assert (stability.edge, stability.operator) == (None, operator)
        assert words in stability.reason
    parted = [{"params": [first], "weight_decay": 0.1}, {"params": [last]}]
    adamw = torch.optim.AdamW(parted, lr=0.1, weight_decay=0.5)
    space.set_gradient(gradient)
    adamw.step()
    assert "several parts" in step_stability(operator, adamw, space, parts=4).reason
