"""Transforms of the gradient: formulas, post-conditions, keyed noise, order, and unchanged inputs."""

from __future__ import annotations

import math

import problems
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from noiseless.optim import additive_noise, aggregate, chain, clip_norm, multiplicative_noise, norm_bias

VECTORS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8).map(lambda v: torch.tensor(v, dtype=torch.float64))
LIMITS = st.floats(1e-3, 1e3)
ORDERS = {"l2": 2.0, "max": float("inf")}


def _apply(transform, gradient: Tensor, theta: Tensor | None = None, step: int = 0):
    theta = torch.zeros_like(gradient) if theta is None else theta
    return transform.update(gradient, transform.init(theta), theta, step)


@pytest.mark.parametrize("norm", ["l2", "max"])
@settings(deadline=None, derandomize=True)
@given(VECTORS, LIMITS)
def test_after_a_clip_the_norm_is_within_the_limit(norm, gradient, limit):
    transformed, state = _apply(clip_norm(limit, norm), gradient)
    before, after = (float(torch.linalg.vector_norm(g, ORDERS[norm])) for g in (gradient, transformed))
    if before <= limit:
        assert torch.equal(transformed, gradient)
        assert not state["clipped"]
    else:
        # c ||g|| / (||g|| + 1e-6) < c; a few roundings
        assert after <= limit * (1 + 1e-15 * 10)
        expected = gradient * limit / (before + 1e-6)
        torch.testing.assert_close(transformed, expected, rtol=1e-14, atol=0)
        assert state["clipped"]


@pytest.mark.parametrize(("norm", "scale"), [("l2", 1 / (5 + 1e-6)), ("max", 1 / (4 + 1e-6))])
def test_clip_equals_its_formula(norm, scale):
    transformed, _ = _apply(clip_norm(1.0, norm), torch.tensor([3.0, -4.0]).double())
    assert transformed.tolist() == pytest.approx([3 * scale, -4 * scale], rel=1e-14)


def test_a_clip_leaves_nan_in_the_gradient():
    transformed, state = _apply(clip_norm(1.0), torch.tensor([float("nan"), 9.0]))
    assert transformed.isnan().any()
    assert not state["clipped"]


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_clip_needs_a_positive_limit(limit):
    with pytest.raises(ValueError, match=f"the clip must be a positive norm, not {limit}"):
        clip_norm(limit)


def test_unknown_norms_are_refused():
    with pytest.raises(ValueError, match='"l2" or "max", not \'l1\''):
        clip_norm(1.0, "l1")
    with pytest.raises(ValueError, match='"l1" or "l2", not \'max\''):
        norm_bias(1.0, 1.0, "max")
    with pytest.raises(ValueError, match="at least 0, not -1"):
        norm_bias(1.0, -1)


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("target", [0.0, 0.5, 30.0])
def test_norm_bias_is_the_gradient_of_its_value(norm, order, target):
    gradient, theta = problems.targets(5, 3).flatten(), problems.targets(5, 3, seed=7).flatten().requires_grad_()
    value = 0.7 / 2 * (torch.linalg.vector_norm(theta, order) - target) ** 2
    expected = gradient + torch.autograd.grad(value, theta)[0]
    transformed, _ = _apply(norm_bias(0.7, target, norm), gradient, theta.detach())
    torch.testing.assert_close(transformed, expected, rtol=1e-13, atol=1e-13)  # rounding


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_norm_bias_at_zero_changes_nothing(norm):
    gradient = torch.ones(3)
    assert torch.equal(_apply(norm_bias(1.0, 5.0, norm), gradient, torch.zeros(3))[0], gradient)


NOISES = [additive_noise, multiplicative_noise]


@pytest.mark.parametrize("noise", NOISES)
def test_noise_has_its_mean_and_deviation(noise):
    n, scale = 40_000, 0.3
    gradient = torch.full((n,), 2.0, dtype=torch.float64)
    draws = (_apply(noise(scale, seed=1), gradient)[0] - gradient) / scale
    if noise is multiplicative_noise:
        draws /= gradient
    # of n standard normals: the mean has deviation 1 / sqrt(n), the deviation 1 / sqrt(2 n); five of them each
    assert abs(float(draws.mean())) < 5 / math.sqrt(n)
    assert abs(float(draws.std()) - 1) < 5 / math.sqrt(2 * n)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_is_keyed_by_seed_and_step(noise):
    gradient = torch.ones(20)
    base, _ = _apply(noise(0.1, seed=1), gradient, step=4)
    torch.manual_seed(3)
    assert torch.equal(_apply(noise(0.1, seed=1), gradient, step=4)[0], base)
    assert not torch.equal(_apply(noise(0.1, seed=2), gradient, step=4)[0], base)
    assert not torch.equal(_apply(noise(0.1, seed=1), gradient, step=5)[0], base)
    assert base.dtype == gradient.dtype


def test_the_two_noises_have_different_draws():
    gradient = torch.ones(20)  # at 1, both add scale * xi
    a, b = (_apply(noise(0.1, seed=1), gradient)[0] for noise in NOISES)
    assert not torch.allclose(a, b)


def test_a_chain_goes_from_left_to_right():
    gradient, theta = problems.targets(5, 3).flatten(), problems.targets(5, 3, seed=7).flatten()
    bias, clip, noise = norm_bias(0.5, 1.0), clip_norm(0.25), additive_noise(0.1, seed=1)
    expected = gradient
    for transform in (bias, clip, noise):
        expected, _ = _apply(transform, expected, theta, 3)
    transformed, state = _apply(chain(bias, clip, noise), gradient, theta, 3)
    assert torch.equal(transformed, expected)
    assert not torch.allclose(_apply(chain(noise, clip, bias), gradient, theta, 3)[0], transformed)
    assert len(state) == 3
    assert [bool(s.get("clipped")) for s in state.values()] == [False, True, False]
    assert chain(bias, clip, noise).name == " -> ".join(t.name for t in (bias, clip, noise))


def test_an_empty_chain_changes_nothing():
    gradient = torch.ones(3)
    assert torch.equal(_apply(chain(), gradient)[0], gradient)
    assert chain().name == "none"


def test_one_transform_may_stand_twice_in_a_chain():
    transformed, state = _apply(chain(clip_norm(2.0), clip_norm(2.0)), torch.tensor([3.0, 4.0]).double())
    assert float(transformed.norm()) < 2.0
    assert len(state) == 2


@pytest.mark.parametrize(
    "transform",
    [
        clip_norm(0.1), clip_norm(0.1, "max"), additive_noise(0.1, 0), multiplicative_noise(0.1, 0),
        norm_bias(1.0, 1.0), norm_bias(1.0, 1.0, "l1"),
        chain(norm_bias(1.0, 1.0), clip_norm(0.1), additive_noise(1.0, 0)),
    ],
    ids=lambda t: t.name,
)  # fmt: skip
def test_inputs_are_not_changed(transform):
    gradient, theta = torch.arange(1.0, 5.0), torch.arange(5.0, 9.0)
    state = transform.init(theta)
    before = {**state}
    transformed, _ = transform.update(gradient, state, theta, 0)
    assert gradient.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert theta.tolist() == [5.0, 6.0, 7.0, 8.0]
    assert state == before
    assert not torch.equal(transformed, gradient)


def _transform_each(transform, gradients: list[Tensor]) -> list[Tensor]:
    """The results of a transform for successive gradients."""
    state, results = transform.init(torch.zeros(len(gradients[0]))), []
    for gradient in gradients:
        result, state = transform.update(gradient, state, gradient, 0)
        results.append(result)
    return results


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 17), st.integers(0, 2**32))
def test_the_aggregate_is_the_mean_of_each_parts_newest_gradient_by_examples(counts, updates, seed):
    gradients = list(problems.targets(updates, 3, seed=seed))
    means = _transform_each(aggregate(counts), gradients)
    for t in range(updates):
        newest = {u % len(counts): gradients[u] for u in range(t + 1)}
        total = sum(counts[k] * gradient for k, gradient in newest.items())
        expected = total / sum(counts[k] for k in newest)
        torch.testing.assert_close(means[t], expected, rtol=1e-12, atol=1e-12)  # order of sums


def test_the_aggregate_sums_in_float64_and_does_not_change_its_inputs():
    large, small = torch.tensor([1e8]), torch.tensor([1.0])
    transform = aggregate([1, 1, 1])
    state = transform.init(large)
    for gradient in (large, small, -large):
        before = dict(state)
        mean, state = transform.update(gradient, before, large, 0)
        assert before["seen"] == state["seen"] - 1
        assert len(before["gradients"]) == before["seen"]
    assert mean.item() == pytest.approx(1 / 3)  # 1e8 + 1 is 1e8 in float32
    assert (large.item(), small.item(), mean.dtype) == (1e8, 1.0, torch.float32)


def test_with_a_constant_rate_the_aggregate_reaches_the_minimum_and_single_parts_do_not():
    A, b = problems.targets(12, 3, seed=1), problems.targets(12, 1, seed=2).flatten()
    parts = [range(k, 12, 4) for k in range(4)]

    def gradient(theta: Tensor, rows: range) -> Tensor:
        a, y = A[list(rows)], b[list(rows)]
        return a.T @ (a @ theta - y) / len(rows)

    norms = {}
    for name, transform in (("aggregate", aggregate([3] * 4)), ("a part", None)):
        theta = torch.zeros(3, dtype=torch.float64)
        state = transform.init(theta) if transform else {}
        for t in range(4000):
            step = gradient(theta, parts[t % 4])
            if transform:
                step, state = transform.update(step, state, theta, t)
            theta = theta - 0.02 * step
        norms[name] = gradient(theta, range(12)).norm().item()
    assert norms["aggregate"] < 1e-12
    assert norms["a part"] > 1e-3


@pytest.mark.parametrize("counts", [[], [3, 0], [-1]])
def test_a_part_without_examples_is_refused(counts):
    with pytest.raises(ValueError, match="each part must have an example"):
        aggregate(counts)
