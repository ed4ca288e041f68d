"""Transforms of single layers: formulas unit by unit in loops, exemptions, and a quadratic with a known answer."""

from __future__ import annotations

import math

import problems
import pytest
import torch
from torch import nn

from noiseless.objective import parameter_space
from noiseless.optim import adaptive_clip, larc, lars


def network():
    """A convolution `[2, 1, 3, 3]` with bias, batch norm, and a final linear layer, large and small weights mixed."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 3))
    module = problems.fill(module)
    with torch.no_grad():
        module[0].weight[0] *= 1e-6  # a unit of almost no weight
        module[1].bias.zero_()
    return module


def space_and_vectors():
    space = parameter_space(network())
    return space, space.theta.clone(), problems.targets(1, len(space), seed=11).flatten()


def apply(transform, gradient, theta, step=0):
    return transform.update(gradient, transform.init(theta), theta, step)


@pytest.mark.parametrize("limit", [0.01, 0.5, 3.0, 1e9])
def test_adaptive_clipping_equals_a_loop_over_units(limit):
    module = network()
    space = parameter_space(module)
    theta, gradient = space.theta, problems.targets(1, len(space), seed=11).flatten()
    transformed, state = apply(adaptive_clip(limit, space), gradient, theta)
    clipped = 0
    for name, g in space.split(gradient).items():
        w, expected = space.split(theta)[name], g.clone()
        if not name.startswith("4."):  # the final layer, its bias included
            units = [slice(i, i + 1) for i in range(len(w))] if w.ndim > 1 else [slice(None)]
            for unit in units:
                largest = limit * max(math.sqrt(float(w[unit].square().sum())), 1e-3)
                norm = math.sqrt(float(g[unit].square().sum()))
                if norm > largest:
                    expected[unit] = g[unit] * largest / norm
                    clipped += 1
        torch.testing.assert_close(space.split(transformed)[name], expected, rtol=1e-13, atol=0)
    assert state == {"clipped": clipped > 0}
    assert (clipped == 0) == (limit == 1e9)


def test_a_single_layer_is_the_final_one():
    space = parameter_space(problems.fill(nn.Linear(3, 2)))
    gradient = 1e6 * torch.ones(len(space)).double()
    transformed, state = apply(adaptive_clip(0.01, space), gradient, space.theta)
    assert torch.equal(transformed, gradient)
    assert state == {"clipped": False}


def test_with_a_frozen_head_the_body_is_clipped():
    module = network()
    module[4].requires_grad_(False)
    space = parameter_space(module)
    gradient = torch.ones_like(space.theta)
    clipped = space.split(apply(adaptive_clip(1e-4, space), gradient, space.theta)[0])
    assert clipped["3.weight"].max() < 0.1  # without the head it is the last layer of theta, and no head


def rates(space, theta, gradient, decay, biases, factor):
    """(g + wd w) * factor(trust ratio) for each layer, with 1 in place of the ratio's factor at zero norms."""
    parts = []
    for name, g in space.split(gradient).items():
        w = space.split(theta)[name]
        wd = decay if biases or w.ndim > 1 else 0.0
        weight, slope = float(w.norm()), float(g.norm())
        scale = factor(0.02 * weight / (slope + wd * weight + 1e-8)) if weight > 0 and slope > 0 else 1.0
        parts.append(((g + wd * w) * scale).flatten())
    return torch.cat(parts)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("biases", [True, False])
def test_layer_rates_equal_their_formulas(decay, biases):
    space, theta, gradient = space_and_vectors()
    transformed, _ = apply(lars(0.02, space, decay, biases), gradient, theta)
    torch.testing.assert_close(
        transformed, rates(space, theta, gradient, decay, biases, lambda r: r), rtol=1e-12, atol=1e-15
    )
    for step, lr in enumerate((0.0, 0.005, 0.02, 0.5)):
        transformed, _ = apply(
            larc(0.02, space, lambda t: (0.0, 0.005, 0.02, 0.5)[t], decay, biases), gradient, theta, step
        )
        expected = rates(space, theta, gradient, decay, biases, lambda r, lr=lr: min(r / lr, 1.0) if lr else 1.0)
        torch.testing.assert_close(transformed, expected, rtol=1e-12, atol=1e-15)


def test_larc_never_raises_and_lars_does():
    space, theta, gradient = space_and_vectors()
    small = gradient * 1e-6
    assert torch.equal(apply(larc(0.02, space, lambda t: 0.1), small, theta)[0], small)
    assert apply(lars(0.02, space), small, theta)[0].norm() > 100 * small.norm()


def test_a_layer_of_zeros_can_leave_zero():
    space = parameter_space(problems.fill(nn.Linear(3, 2)))
    theta, gradient = torch.zeros(len(space)).double(), torch.ones(len(space)).double()
    for transform in (lars(0.02, space, 0.1), larc(0.02, space, lambda t: 0.1, 0.1)):
        assert torch.equal(apply(transform, gradient, theta)[0], gradient)
        assert torch.equal(apply(transform, theta, gradient)[0], 0.1 * gradient)  # g = 0: only the decay


def test_lars_on_a_quadratic_shrinks_all_layers_at_the_same_rate():
    # f = sum c_l ||w_l||**2 / 2: g = c w, so trust ||w|| / ||g|| = trust / c and the step is -lr trust w, whatever c is
    space = parameter_space(problems.fill(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))))
    theta, curvatures = space.theta.clone(), (1e-3, 1.0, 50.0, 7.0)
    for _ in range(5):
        parts = [c * w.flatten() for c, w in zip(curvatures, space.split(theta).values(), strict=True)]
        gradient, _ = apply(lars(0.1, space), torch.cat(parts), theta)
        theta = theta - 0.5 * gradient
    # 1e-8 beside the smallest ||g||, 1e-3 * ||w||: 2e-5 of it
    torch.testing.assert_close(theta, space.theta * (1 - 0.05) ** 5, rtol=1e-4, atol=0)


def test_nan_stays_in_the_gradient():
    space, theta, gradient = space_and_vectors()
    gradient[3] = math.nan
    for transform in (lars(0.02, space), larc(0.02, space, lambda t: 0.1), adaptive_clip(0.01, space)):
        assert apply(transform, gradient, theta)[0].isnan().any()


def test_inputs_are_not_changed():
    space, theta, gradient = space_and_vectors()
    before = theta.clone(), gradient.clone()
    for transform in (lars(0.02, space, 0.1), larc(0.02, space, lambda t: 0.1, 0.1), adaptive_clip(0.01, space)):
        apply(transform, gradient, theta)
        assert torch.equal(theta, before[0])
        assert torch.equal(gradient, before[1])


@pytest.mark.parametrize("number", [0.0, -1.0, math.nan, math.inf])
def test_numbers_out_of_range_are_refused(number):
    space, _, _ = space_and_vectors()
    with pytest.raises(ValueError, match=f"agc must be a positive ratio, not {number}"):
        adaptive_clip(number, space)
    with pytest.raises(ValueError, match=f"trust must be a positive number, not {number}"):
        lars(number, space)
    with pytest.raises(ValueError, match="weight decay must be a finite number"):
        larc(0.02, space, lambda t: 0.1, -1.0)
