"""One call on any module: each number against a computation without blocks, sums or Krylov spaces."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from curvatures import empirical_fisher, gauss_newton
from problems import COUNT, convolution, images, perceptron, points, with_batch_norm, with_dropout
from short_analyses import LOSS, RESULTS
from torch import nn
from torch.func import functional_call, grad, jacrev
from torch.utils.data import DataLoader, TensorDataset

import noiseless
from noiseless import DatasetExamples, cross_entropy
from noiseless.analysis import random_direction
from noiseless.objective import parameter_space


def flat(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def at(module, theta):
    """A copy of a module with other parameters."""
    module = copy.deepcopy(module)
    nn.utils.vector_to_parameters(theta, module.parameters())
    return module


@torch.no_grad()
def value(module, x, y):
    return float(LOSS(module(x), y))


def mean_loss(module, x, y):
    """The mean loss as a function of flat parameters; batch norm sees all examples in `train()` mode."""
    module = copy.deepcopy(module)
    if module.training:
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    names, shapes = zip(*((name, p.shape) for name, p in module.named_parameters()), strict=True)
    buffers = dict(module.named_buffers())

    def loss(theta):
        parts = theta.split([shape.numel() for shape in shapes])
        state = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return nn.functional.cross_entropy(functional_call(module, buffers | state, (x,)), y)

    return loss


def hessian(module, x, y):
    return jacrev(grad(mean_loss(module, x, y)))(flat(module)).detach()


@pytest.mark.parametrize(("make", "training"), [(perceptron, True), (with_batch_norm, True), (with_batch_norm, False)])
def test_sharpness_is_the_end_of_the_dense_spectrum_in_the_modules_mode(make, training):
    module, (x, y) = make().train(training), points()
    exact = torch.linalg.eigvalsh(hessian(module, x, y)).numpy()
    result = noiseless.sharpness(module, LOSS, (x, y), k=3, smallest=2, tolerance=1e-7)
    np.testing.assert_allclose(result.eigenvalues, exact[::-1][:3], rtol=1e-9)
    np.testing.assert_allclose(result.smallest, exact[:2], rtol=1e-9, atol=1e-12)
    assert result.value == result.eigenvalues[0]
    assert (result.converged, result.training, result.examples, result.block) == (True, training, COUNT, COUNT)
    products = hessian(module, x, y).numpy() @ result.eigenvectors.T
    expected = result.eigenvectors.T * np.concatenate([result.eigenvalues, result.smallest])
    np.testing.assert_allclose(products, expected, atol=1e-6)


def test_the_mode_can_be_told():
    module, data = with_batch_norm().eval(), points()
    running, block = (noiseless.sharpness(module, LOSS, data, batch_norm=mode) for mode in ("running", "block"))
    assert running.value == noiseless.sharpness(module, LOSS, data).value != block.value
    assert (running.training, block.training) == (False, True)
    assert block.value == noiseless.sharpness(module.train(), LOSS, data).value


def test_the_density_and_the_trace_are_those_of_the_dense_hessian():
    module, (x, y) = perceptron(), points()
    dense = hessian(module, x, y)
    size = len(dense)
    density = noiseless.hessian_density(module, LOSS, (x, y), probes=60, steps=size, points=2000)
    for power in (1, 2):
        moments = (density.weights * density.nodes**power).sum(1)
        exact = float(torch.linalg.matrix_power(dense, power).trace()) / size
        assert abs(moments.mean() - exact) < 4 * moments.std(ddof=1) / math.sqrt(60)
    assert np.trapezoid(density.density, density.eigenvalues) == pytest.approx(1, abs=1e-6)
    # the sketch has more columns than H has rows: the first term of Hutch++ is the trace itself
    trace = noiseless.hessian_trace(module, LOSS, (x, y), products=3 * size)
    assert trace.value == pytest.approx(float(dense.trace()), rel=1e-9)
    assert (trace.error, trace.parameters) == (pytest.approx(0, abs=1e-9), size)
    rough = noiseless.hessian_trace(module, LOSS, (x, y), products=12)
    assert 0 < abs(rough.value - float(dense.trace())) < 6 * rough.error


@pytest.mark.parametrize("curvature", ["ggn", "empirical-fisher"])
def test_other_matrices_and_blocks_are_those_of_their_dense_ones(curvature):
    module, (x, y) = perceptron(), points()
    oracle = {"ggn": gauss_newton, "empirical-fisher": empirical_fisher}[curvature]
    dense = oracle(module, cross_entropy, x, y, COUNT)
    top = noiseless.sharpness(module, LOSS, (x, y), k=2, curvature=curvature, tolerance=1e-7)
    np.testing.assert_allclose(top.eigenvalues, torch.linalg.eigvalsh(dense).numpy()[::-1][:2], rtol=1e-9)
    assert (top.curvature, top.of) == (curvature, None)
    block = noiseless.sharpness(module, LOSS, (x, y), curvature=curvature, of="2", tolerance=1e-7)
    np.testing.assert_allclose(block.value, torch.linalg.eigvalsh(dense[16:, 16:])[-1], rtol=1e-9)
    assert block.eigenvectors.shape == (1, 15)
    trace = noiseless.hessian_trace(module, LOSS, (x, y), curvature=curvature, of="2.*", products=45)
    assert trace.value == pytest.approx(float(dense[16:, 16:].trace()), rel=1e-9)
    assert trace.parameters == 15
    density = noiseless.hessian_density(module, LOSS, (x, y), curvature=curvature, of="2.bias", probes=1, steps=3)
    assert density.nodes.shape == (1, 3)
    layers = noiseless.curvature_by_layer(module, LOSS, (x, y), k=20, curvature=curvature, probes=40, tolerance=1e-7)
    assert (layers.layers, layers.parameters) == (["0", "2"], [16, 15])
    for number, part in enumerate((dense[:16, :16], dense[16:, 16:])):
        exact = torch.linalg.eigvalsh(part).numpy()[::-1]
        np.testing.assert_allclose(layers.eigenvalues[number][: len(exact)], exact, rtol=1e-6, atol=1e-8)
        assert np.isnan(layers.eigenvalues[number][len(exact) :]).all()
        assert abs(layers.traces[number] - float(part.trace())) < 4 * layers.errors[number]


def test_curvature_by_layer_of_nothing_is_refused():
    with pytest.raises(ValueError, match="not k=0 and probes=0"):
        noiseless.curvature_by_layer(perceptron(), LOSS, points(), k=0, probes=0)
    with pytest.raises(ValueError, match="no parameter matches 'layer9'"):
        noiseless.sharpness(perceptron(), LOSS, points(), of="layer9")


def test_the_noise_scale_is_that_of_the_per_example_gradients():
    module, (x, y) = perceptron(), points()
    gradients = torch.stack([grad(mean_loss(module, x[k : k + 1], y[k : k + 1]))(flat(module)) for k in range(COUNT)])
    mean = gradients.mean(0)
    covariance = float((gradients - mean).square().sum()) / (COUNT - 1)
    signal = float(mean.square().sum()) - covariance / COUNT
    result = noiseless.gradient_noise_scale(module, LOSS, (x, y), block=1)
    assert result.covariance_trace == pytest.approx(covariance, rel=1e-12)
    assert result.gradient_norm == pytest.approx(float(mean.norm()), rel=1e-12)
    assert result.signal == pytest.approx(signal, rel=1e-9)
    assert (result.value is None) == (signal <= 0)
    assert set(result.layers) == dict(module.named_parameters()).keys()
    if signal > 0:
        assert result.value == pytest.approx(covariance / signal, rel=1e-9)
        np.testing.assert_allclose(result.signal_to_noise, signal / covariance * result.sizes, rtol=1e-9)


def test_without_a_block_noise_is_measured_between_sixteen_blocks():
    data = points(70)
    assert noiseless.gradient_noise_scale(perceptron(), LOSS, data).block == 70 // 16
    assert noiseless.sharpness(perceptron(), LOSS, points(130)).block == 128


def test_a_landscape_has_the_losses_of_moved_copies():
    module, (x, y) = perceptron().eval(), points()
    directions = [random_direction(parameter_space(module), 3, number) for number in range(2)]
    plane = noiseless.loss_landscape(module, LOSS, (x, y), points=(4, 3), reach=0.6, seed=3)
    assert [axis.tolist() for axis in plane.axes] == [pytest.approx([-0.6, -0.2, 0.2, 0.6]), [-0.6, 0, 0.6]]
    for i, a in enumerate(plane.axes[0]):
        for j, b in enumerate(plane.axes[1]):
            moved = at(module, flat(module) + a * directions[0] + b * directions[1])
            assert plane.loss[i, j] == pytest.approx(value(moved, x, y), rel=1e-12)
            assert plane.accuracy[i, j] == pytest.approx(float((moved(x).argmax(1) == y).double().mean()))
    vectors = torch.stack(directions)
    same = noiseless.loss_landscape(module, LOSS, (x, y), points=(4, 3), reach=0.6, directions=vectors)
    assert np.array_equal(same.loss, plane.loss)
    line = noiseless.loss_landscape(module, nn.MSELoss(), (x, x[:, :3]), points=3)
    assert line.accuracy is None
    assert line.loss.shape == (3,)


def test_a_line_along_the_sharpest_direction_curves_by_the_sharpness():
    module, data = perceptron(), points()
    sharpest = noiseless.sharpness(module, LOSS, data, tolerance=1e-8)
    step = 1e-3
    vector = torch.from_numpy(sharpest.eigenvectors)
    line = noiseless.loss_landscape(module, LOSS, data, points=3, directions=vector, reach=step)
    # central difference: error O(step**2) of the fourth derivative
    second = (line.loss[0] - 2 * line.loss[1] + line.loss[2]) / step**2
    assert second == pytest.approx(sharpest.value, rel=1e-4)
    eigen = noiseless.loss_landscape(module, LOSS, data, points=3, directions="eigen", reach=1e-2)
    length = 1e-2 * float(flat(module).norm())
    assert (eigen.loss[0] - 2 * eigen.loss[1] + eigen.loss[2]) / length**2 == pytest.approx(sharpest.value, rel=1e-2)


def test_a_line_towards_another_module_ends_at_it():
    one, other, (x, y) = perceptron(), perceptron(), points()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.5)
    for state in (other, other.state_dict(), [other]):
        line = noiseless.loss_landscape(one, LOSS, (x, y), points=5, towards=state)
        assert line.axes[0].tolist() == [-0.5, 0, 0.5, 1, 1.5]
        assert line.loss[1] == pytest.approx(value(one, x, y), rel=1e-12)
        assert line.loss[3] == pytest.approx(value(other, x, y), rel=1e-12)
    with pytest.raises(ValueError, match=r"no line leads to state 0: its 0\.weight is of shape \[8, 3\]"):
        noiseless.loss_landscape(one, LOSS, (x, y), points=5, towards=with_dropout())


def test_flatness_is_the_mean_rise_along_random_directions():
    module, (x, y) = perceptron(), points()
    result = noiseless.flatness(module, LOSS, (x, y), radius=0.3, tolerance=0, most=6, seed=2)
    directions = [random_direction(parameter_space(module), 2, number) for number in range(6)]
    here = value(module, x, y)
    rises = [value(at(module, flat(module) + 0.3 * d), x, y) - here for d in directions]
    np.testing.assert_allclose(result.increases, rises, rtol=1e-9)
    assert result.value == pytest.approx(np.mean(rises))
    assert result.error == pytest.approx(np.std(rises, ddof=1) / math.sqrt(6))
    assert result.stopped == "bound"


def test_a_data_loader_gives_block_and_data_and_no_order():
    module, data = with_batch_norm(), points()
    dataset = TensorDataset(*data)
    loader = DataLoader(dataset, batch_size=4, shuffle=True, drop_last=True)
    of_loader = noiseless.sharpness(module, LOSS, loader)
    assert (of_loader.block, of_loader.examples) == (4, COUNT)
    assert of_loader.value == noiseless.sharpness(module, LOSS, data, block=4).value
    assert of_loader.value != noiseless.sharpness(module, LOSS, DatasetExamples(dataset)).value  # one norm block


def test_convolutions_in_channels_last_are_analysed():
    module, data = convolution(), images()
    plain = noiseless.sharpness(module, LOSS, data).value
    assert noiseless.sharpness(module.to(memory_format=torch.channels_last), LOSS, data).value == plain


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_one_line_and_plain_values(name):
    result = RESULTS[name](perceptron(), points())
    assert "\n" not in repr(result)
    assert len(repr(result)) <= 120
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["examples"] == COUNT
    assert values["passes"] > 0
    assert "eigenvectors" not in values
    with pytest.raises(AttributeError):
        result.passes = 0


def test_values_that_are_not_finite_are_gaps():
    module, (x, y) = perceptron(), points()
    line = noiseless.loss_landscape(module, lambda output, _: output.exp().sum(1), (x, y), points=5, reach=1e4)
    assert np.isfinite(line.loss).tolist() == [False, False, True, False, False]
    assert line.to_dict()["loss"][0] is None
    line.plot()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, d: noiseless.sharpness(m, LOSS, d, blok=3), "unexpected keyword argument 'blok'; its arguments are"),
        (lambda m, d: noiseless.sharpness(m, LOSS, d, block=99), "block"),
        (lambda m, d: noiseless.sharpness(m, LOSS, d, batch_norm="runing"), "running"),
        (lambda m, d: noiseless.gradient_noise_scale(m, LOSS, d, block=11), "choose a block of at most 5"),
        (lambda m, d: noiseless.loss_landscape(m, LOSS, d, points=(3, 3, 3)), "one number or two"),
        (lambda m, d: noiseless.loss_landscape(m, LOSS, d, directions="eigne"), "eigen"),
        (lambda m, d: noiseless.loss_landscape(m, LOSS, d, points=3).plot(of="los"), "loss"),
        (lambda m, d: noiseless.loss_landscape(m, LOSS, d, (3, 3), directions=torch.ones(1, 31)), "2 directions"),
    ],
)
def test_a_mistake_is_a_sentence(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(perceptron(), points())
