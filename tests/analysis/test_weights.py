"""Weight space against numpy, tensor by tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import convolution, generator, perceptron

from noiseless.analysis import layers_of, weights
from noiseless.objective import parameter_space


def _vectors(space, count):
    rng = generator(5)
    return [torch.randn(len(space), generator=rng, dtype=torch.float64) for _ in range(count)]


def test_every_norm_equals_numpys():
    module = convolution()
    space = parameter_space(module)
    start, gradient, update = _vectors(space, 3)
    total, layers = weights(space, start=start, gradient=gradient, update=update)
    assert list(layers) == [name for name, _ in module.named_parameters()]
    offset = 0
    for name, p in module.named_parameters():
        part = slice(offset, offset + p.numel())
        offset += p.numel()
        theta, layer = p.detach().numpy().ravel(), layers[name]
        assert layer.norm == pytest.approx(np.linalg.norm(theta), rel=1e-14)
        assert layer.distance == pytest.approx(np.linalg.norm(theta - start[part].numpy()), rel=1e-14)
        assert layer.gradient_norm == pytest.approx(np.linalg.norm(gradient[part]), rel=1e-14)
        assert layer.update_ratio == pytest.approx(np.linalg.norm(update[part]) / np.linalg.norm(theta), rel=1e-14)
    theta = space.theta.numpy()
    assert total.norm == pytest.approx(np.linalg.norm(theta), rel=1e-14)
    assert total.distance == pytest.approx(np.linalg.norm(theta - start.numpy()), rel=1e-14)
    assert total.update_ratio == pytest.approx(np.linalg.norm(update) / np.linalg.norm(theta), rel=1e-14)


def test_missing_vectors_give_none_and_a_zero_norm_has_no_ratio():
    space = parameter_space(perceptron())
    total, layers = weights(space)
    assert (total.distance, total.gradient_norm, total.update_norm, total.update_ratio) == (None,) * 4
    with torch.no_grad():
        space.split(space.theta)["0.bias"].zero_()
    _, layers = weights(space, update=torch.ones(len(space)))
    assert (layers["0.bias"].norm, layers["0.bias"].update_norm, layers["0.bias"].update_ratio) == (0, 2, None)


def test_another_state_may_be_measured():
    space = parameter_space(perceptron())
    (other,) = _vectors(space, 1)
    total, _ = weights(space, theta=other, start=space.theta)
    assert total.norm == pytest.approx(np.linalg.norm(other), rel=1e-14)
    assert total.distance == pytest.approx(np.linalg.norm(other - space.theta), rel=1e-14)


def test_a_row_is_of_the_state_after_the_step():
    space = parameter_space(perceptron())
    before, start = space.theta.clone(), torch.zeros(len(space), dtype=torch.float64)
    with torch.no_grad():
        space.theta.mul_(1.25)  # times 5/4: the update is a fifth of the new theta
    row = layers_of(space, start, before, before)
    for name, p in space.split(before).items():
        norm = np.linalg.norm(p)
        expected = {"norm": 1.25 * norm, "distance": 1.25 * norm, "gradient_norm": norm, "update_ratio": 0.2}
        assert row[name] == pytest.approx(expected, rel=1e-13)


def test_small_differences_of_float32_are_not_lost():
    space = parameter_space(perceptron().float())
    before = space.theta.clone()
    with torch.no_grad():
        space.theta.copy_(torch.nextafter(before, torch.tensor(9.0)))
    row = layers_of(space, before, before, before)
    assert all(0 < layer["update_ratio"] < 2**-22 for layer in row.values())


@pytest.mark.parametrize("name", ["theta", "start", "gradient", "update"])
def test_a_vector_of_another_length_is_refused(name):
    space = parameter_space(perceptron())
    with pytest.raises(ValueError, match=rf"{name} must have shape \[{len(space)}\], not \[7\]"):
        weights(space, **{name: torch.zeros(7)})
