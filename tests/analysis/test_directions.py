"""Random directions against plain loops, principal ones against a full singular value decomposition."""

from __future__ import annotations

import math

import numpy as np
import problems
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from noiseless import keyed, parameter_space
from noiseless.analysis import difference, normalise, principal_directions, random_direction
from noiseless.errors import UnknownNameError

HOW = ("filter", "layer", "weight", "none")
# norms of some ten float64 squares, in two orders: a few roundings of 1.1e-16
CLOSE = {"rel": 1e-14}


class Odd(nn.Module):
    """A convolution, a matrix with a row of zeros, a bias, a gain of no dimension, and a frozen tensor."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(2, 3, 2, 2))
        self.matrix = nn.Parameter(torch.empty(3, 4))
        self.bias = nn.Parameter(torch.empty(4))
        self.gain = nn.Parameter(torch.empty(()))
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)


def _odd():
    module = problems.fill(Odd())
    with torch.no_grad():
        module.matrix[1] = 0.0
    return module


def _length(values):
    return math.sqrt(sum(v * v for v in values))


def _naive(tensor, draws, how):
    """One parameter's part of a direction, by Python loops over numbers: flat lists in and out."""
    w = tensor.detach().flatten().tolist()
    if how == "weight":
        return [d * abs(v) for d, v in zip(draws, w, strict=True)]
    if how == "layer":
        return [d / _length(draws) * _length(w) for d in draws]
    if tensor.ndim < 2:
        return [0.0] * len(w)
    scaled, width = [], len(w) // len(tensor)
    for start in range(0, len(w), width):
        row = draws[start : start + width]
        scaled += [d / _length(row) * _length(w[start : start + width]) for d in row]
    return scaled


def _draws(space, seed, number):
    return keyed.normal(seed, "direction", number, torch.arange(len(space))).tolist()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("make", [_odd, problems.convolution, problems.perceptron])
def test_random_directions_equal_plain_loops(make, how):
    module = make()
    space = parameter_space(module)
    draws, direction = _draws(space, 3, 2), random_direction(space, 3, 2, how)
    assert direction.dtype == torch.float64
    if how == "none":
        theta = [v for p in module.parameters() if p.requires_grad for v in p.detach().flatten().tolist()]
        assert direction.tolist() == pytest.approx([d / _length(draws) * _length(theta) for d in draws], **CLOSE)
        return
    expected = []
    for p in module.parameters():
        if p.requires_grad:
            expected += _naive(p, draws[len(expected) : len(expected) + p.numel()], how)
    assert direction.tolist() == pytest.approx(expected, **CLOSE)


def test_directions_are_keyed():
    space = parameter_space(problems.perceptron())
    first = random_direction(space, 0, 0)
    assert torch.equal(first, random_direction(space, 0, 0))
    for seed, number in ((1, 0), (0, 1)):
        assert not torch.equal(first, random_direction(space, seed, number))


def test_a_long_direction_is_drawn_in_parts():
    module = nn.Linear(300, 301)  # more than 2**16 elements
    space = parameter_space(module)
    index = torch.arange(len(space))
    raw = keyed.normal(1, "direction", 0, index)
    direction = random_direction(space, 1, 0, "none")
    torch.testing.assert_close(direction, raw * (space.theta.double().norm() / raw.norm()), rtol=1e-13, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=4),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e8]),
    stretch=st.floats(0.01, 100),
    seed=st.integers(0, 2**32),
    how=st.sampled_from(HOW),
)
def test_normalised_directions_have_the_length_of_the_weights(shape, scale, stretch, seed, how):
    rng = torch.Generator().manual_seed(seed)
    module = nn.Module()
    module.p = nn.Parameter(torch.randn(shape, generator=rng, dtype=torch.float64) * scale)
    module.q = nn.Parameter(torch.randn(2, 3, generator=rng, dtype=torch.float64))
    space = parameter_space(module)
    d = torch.randn(len(space), generator=rng, dtype=torch.float64)
    normalised = normalise(d, space, how)
    if how != "weight":  # each part has the weights' norm, whatever its norm was before
        torch.testing.assert_close(normalise(d * stretch, space, how), normalised, rtol=1e-12, atol=0)
        torch.testing.assert_close(normalise(normalised, space, how), normalised, rtol=1e-12, atol=0)
    assert ((normalised == 0) | (normalised.sign() == d.sign())).all()
    parts = space.split(normalised)
    if how == "none":
        assert normalised.norm().item() == pytest.approx(space.theta.norm().item(), rel=1e-12)
    elif how == "layer":
        for name, p in module.named_parameters():
            assert parts[name].norm().item() == pytest.approx(p.norm().item(), rel=1e-12)
    elif how == "filter":
        for name, p in module.named_parameters():
            for row, weights in zip(parts[name], p, strict=True) if p.ndim > 1 else ():
                assert row.norm().item() == pytest.approx(weights.norm().item(), rel=1e-12)


def test_rescaling_a_net_without_changing_its_function_keeps_its_landscape():
    # what filter normalisation is for (section 3 of the paper): w2 = W2 / 10 after w1 = 10 W1, with ReLU between
    net = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False)).double()
    x, _ = problems.points()
    space = parameter_space(net)
    outputs = []
    for factor in (1.0, 10.0):
        with torch.no_grad():
            net[0].weight.mul_(factor)
            net[2].weight.div_(factor)
        before = space.theta.clone()
        space.theta.add_(random_direction(space, 0, 0, "filter"), alpha=0.3)
        outputs.append(net(x).detach())
        space.theta.copy_(before)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-12, atol=1e-12)


def test_differences_are_exact():
    start, end = torch.tensor([1.0, 0.1]), torch.tensor([1.5, -0.3])
    change = difference(start, end)
    assert change.dtype == torch.float64
    assert torch.equal((start.double() + change).float(), end)


def _states(count, length, seed=0):
    rng = problems.generator(seed)
    steps = torch.randn(count, length, generator=rng) * torch.linspace(1, 0.1, count)[:, None]
    return list(steps.cumsum(0))


@pytest.mark.parametrize(("count", "length", "k"), [(3, 7, 1), (3, 7, 2), (12, 30, 2), (5, 2**17 + 9, 4)])
def test_principal_directions_are_singular_vectors(count, length, k):
    states = _states(count, length)
    rows = np.stack([state.numpy().astype(np.float64) for state in states])
    left, s, right = np.linalg.svd(rows[:-1] - rows[-1], full_matrices=False)
    principal = principal_directions(states, k)
    for n in range(k):
        vector = right[n]
        sign = np.sign(vector[np.abs(vector).argmax()])
        # the Gram matrix squares the singular values: rounding of 1e-16 (s_1 / s_k)**2, and those differ by some ten
        np.testing.assert_allclose(principal.directions[n].numpy(), sign * vector, rtol=0, atol=1e-11)
        np.testing.assert_allclose(principal.coordinates[:-1, n].numpy(), sign * left[:, n] * s[n], rtol=0, atol=1e-10)
        assert principal.explained[n].item() == pytest.approx(s[n] ** 2 / (s**2).sum(), rel=1e-10)
    assert not principal.coordinates[-1].any()


def test_mirrored_states_have_the_same_principal_directions():
    states = _states(6, 20)
    mirrored = [-state for state in states]
    one, other = (principal_directions(trajectory, 2).directions for trajectory in (states, mirrored))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


def test_invalid_vectors_and_states_are_refused():
    space = parameter_space(problems.perceptron())
    with pytest.raises(ValueError, match=r"has shape \[31\], not \[30\]: is it of another model"):
        normalise(torch.ones(30), space, "layer")
    with pytest.raises(ValueError, match="a direction holds NaN"):
        normalise(torch.full((31,), math.nan), space, "layer")
    with pytest.raises(UnknownNameError, match="did you mean filter"):
        normalise(torch.ones(31), space, "filters")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must lie in"):
        random_direction(space, -1)
    space.theta[0] = math.inf
    for how in HOW:
        with pytest.raises(ValueError, match="the parameters hold NaN or infinity"):
            random_direction(space, 0, 0, how)
    with pytest.raises(ValueError, match=r"\[2\] and \[3\]: they are not of one parameter space"):
        difference(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match="the two states are equal"):
        difference(torch.ones(2), torch.ones(2))


@pytest.mark.parametrize(
    ("states", "count", "message"),
    [
        ([torch.ones(3)] * 2, 2, "2 principal directions need at least 3 states, not 2"),
        ([torch.ones(3)] * 3, 1, "the 3 states differ along 0 directions only"),
        ([torch.ones(3), torch.full((3,), 2.0), torch.full((3,), 4.0)], 2, "differ along 1 direction only"),
        ([torch.ones(3), torch.ones(4), torch.ones(3)], 1, "they are not of one space"),
        ([torch.ones(3), torch.full((3,), math.nan), torch.ones(3)], 1, "holds NaN or infinity"),
    ],
)
def test_states_without_principal_directions_are_refused(states, count, message):
    with pytest.raises(ValueError, match=message):
        principal_directions(states, count)
