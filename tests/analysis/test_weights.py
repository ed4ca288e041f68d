"""Weight space against numpy, tensor by tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import convolution, generator, perceptron

from noiseless.analysis import layers_of, weights
from noiseless.objective import parameter_space


def _vectors(space, count):
    drawn = generator(5)
    return [torch.randn(len(space), generator=drawn, dtype=torch.float64) for _ in range(count)]


def test_every_norm_is_numpys():
    module = convolution()
    space = parameter_space(module)
    start, gradient, update = _vectors(space, 3)
    whole, layers = weights(space, start=start, gradient=gradient, update=update)
    assert list(layers) == [name for name, _ in module.named_parameters()]
    place = 0
    for name, p in module.named_parameters():
        part = slice(place, place + p.numel())
        place += p.numel()
        theta, found = p.detach().numpy().ravel(), layers[name]
        assert found.norm == pytest.approx(np.linalg.norm(theta), rel=1e-14)
        assert found.distance == pytest.approx(np.linalg.norm(theta - start[part].numpy()), rel=1e-14)
        assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient[part]), rel=1e-14)
        assert found.update_ratio == pytest.approx(np.linalg.norm(update[part]) / np.linalg.norm(theta), rel=1e-14)
    theta = space.theta.numpy()
    assert whole.norm == pytest.approx(np.linalg.norm(theta), rel=1e-14)
    assert whole.distance == pytest.approx(np.linalg.norm(theta - start.numpy()), rel=1e-14)
    assert whole.update_ratio == pytest.approx(np.linalg.norm(update) / np.linalg.norm(theta), rel=1e-14)


def test_what_is_not_given_is_none_and_zero_has_no_ratio():
    space = parameter_space(perceptron())
    whole, layers = weights(space)
    assert (whole.distance, whole.gradient_norm, whole.update_norm, whole.update_ratio) == (None,) * 4
    with torch.no_grad():
        space.split(space.theta)["0.bias"].zero_()
    _, layers = weights(space, update=torch.ones(len(space)))
    assert (layers["0.bias"].norm, layers["0.bias"].update_norm, layers["0.bias"].update_ratio) == (0, 2, None)


def test_another_state_may_be_asked():
    space = parameter_space(perceptron())
    (other,) = _vectors(space, 1)
    whole, _ = weights(space, theta=other, start=space.theta)
    assert whole.norm == pytest.approx(np.linalg.norm(other), rel=1e-14)
    assert whole.distance == pytest.approx(np.linalg.norm(other - space.theta), rel=1e-14)


def test_a_row_is_of_the_state_after_the_step():
    space = parameter_space(perceptron())
    before, start = space.theta.clone(), torch.zeros(len(space), dtype=torch.float64)
    with torch.no_grad():
        space.theta.mul_(1.25)  # 5/4 of it: the update is a fifth of what it has become
    row = layers_of(space, start, before, before)
    for name, p in space.split(before).items():
        norm = np.linalg.norm(p)
        expected = {"norm": 1.25 * norm, "distance": 1.25 * norm, "gradient_norm": norm, "update_ratio": 0.2}
        assert row[name] == pytest.approx(expected, rel=1e-13)


def test_small_differences_of_float32_are_kept():
    space = parameter_space(perceptron().float())
    before = space.theta.clone()
    with torch.no_grad():
        space.theta.copy_(torch.nextafter(before, torch.tensor(9.0)))
    row = layers_of(space, before, before, before)
    assert all(0 < each["update_ratio"] < 2**-22 for each in row.values())


@pytest.mark.parametrize("name", ["theta", "start", "gradient", "update"])
def test_a_vector_of_another_length_is_refused(name):
    space = parameter_space(perceptron())
    with pytest.raises(ValueError, match=rf"{name} must have shape \[{len(space)}\], not \[7\]"):
        weights(space, **{name: torch.zeros(7)})
