"""Blocks of matrices by layer or pattern, diagonals and traces, against dense matrices."""

import pytest
import torch
from curvatures import empirical_fisher, gauss_newton
from matrices import Matrix
from oracles import ROUNDING
from problems import convolution, generator, images, perceptron, points
from torch import nn

from noiseless.analysis import (
    GaussNewton,
    Hessian,
    Part,
    Restricted,
    diagonal,
    layer_parts,
    matching_part,
    top_eigenvalues,
)
from noiseless.objective import EmpiricalRisk, cross_entropy, parameter_space


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.layer1 = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2, bias=False))
        self.layer11 = nn.Linear(2, 2)


def test_layers_are_the_modules_that_hold_parameters():
    space = parameter_space(Nested())
    parts = layer_parts(space)
    assert {name: part.names for name, part in parts.items()} == {
        "": ("scale",),
        "layer1.0": ("layer1.0.weight", "layer1.0.bias"),
        "layer1.1": ("layer1.1.weight",),
        "layer11": ("layer11.weight", "layer11.bias"),
    }
    assert [len(part) for part in parts.values()] == [2, 9, 6, 6]
    assert sum(map(len, parts.values())) == len(space)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("layer1", ["layer1.0.weight", "layer1.0.bias", "layer1.1.weight"]),
        ("layer1.*", ["layer1.0.weight", "layer1.0.bias", "layer1.1.weight"]),
        ("layer1.0", ["layer1.0.weight", "layer1.0.bias"]),
        ("*.bias", ["layer1.0.bias", "layer11.bias"]),
        ("layer1?.weight", ["layer11.weight"]),
        ("*", ["scale", "layer1.0.weight", "layer1.0.bias", "layer1.1.weight", "layer11.weight", "layer11.bias"]),
    ],
)
def test_a_pattern_names_parameters_or_modules(pattern, names):
    assert list(matching_part(parameter_space(Nested()), pattern).names) == names


def test_a_pattern_that_matches_nothing_is_refused_with_examples():
    module = Nested()
    with pytest.raises(ValueError, match=r"no parameter matches 'layer2': .* 'layer1.0', 'layer1.1', 'layer11'"):
        matching_part(parameter_space(module), "layer2")
    with pytest.raises(ValueError, match="each once and in its order"):
        Part(parameter_space(module), ("layer11.bias", "scale"))


def test_a_part_embeds_and_extracts():
    module = Nested()
    space = parameter_space(module)
    part = matching_part(space, "*.weight")
    V = torch.randn(2, len(part), generator=generator(3))
    whole = part.embed(V)
    assert torch.equal(part.extract(whole), V)
    pieces = space.split(whole)
    assert not any(pieces[name].any() for name in space.names if name not in part.names)
    assert torch.equal(pieces["layer11.weight"][0].flatten(), V[0, -4:])
    assert torch.equal(
        part.theta, torch.cat([p.detach().flatten() for n, p in module.named_parameters() if "weight" in n])
    )


def test_the_eigenvalues_of_a_block_are_those_of_the_submatrix():
    """Positive definite, so that zeros of the other parameters would be the smallest eigenvalues."""
    module, (x, y) = perceptron(), points()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=6)
    part = matching_part(risk.space, "2.bias")
    dense = gauss_newton(module, cross_entropy, x, y, 6)[-3:, -3:] + torch.eye(3)
    block = Restricted(Shifted(GaussNewton(risk)), part)
    top = top_eigenvalues(block, 1, 2, tolerance=1e-9)
    expected = torch.linalg.eigvalsh(dense)
    torch.testing.assert_close(top.largest.values, expected[-1:], **ROUNDING)
    torch.testing.assert_close(top.smallest.values, expected[:2], **ROUNDING)
    assert top.products <= 3


class Shifted:
    """`A + I`."""

    def __init__(self, operator):
        self.operator, self.space = operator, operator.space

    def product(self, V):
        return self.operator.product(V) + V

    def passes(self, vectors):
        return self.operator.passes(vectors)


def test_exact_diagonals_are_those_of_the_dense_matrices():
    module, (x, y) = convolution(), images()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=4)
    for kind, dense in (("ggn", gauss_newton), ("empirical-fisher", empirical_fisher)):
        exact = diagonal(GaussNewton(risk, kind))
        expected = dense(module, cross_entropy, x, y, 4).diagonal()
        torch.testing.assert_close(exact.values, expected, **ROUNDING)
        assert not exact.errors.any()
        assert exact.trace == pytest.approx(float(expected.sum()), rel=1e-12)
        sizes = [p.numel() for p in module.parameters()]
        by_parameter = [float(part.sum()) for part in expected.split(sizes)]
        by_layer = [by_parameter[0], sum(by_parameter[1:3]), sum(by_parameter[3:])]
        assert [layer.value for layer in exact.layers.values()] == pytest.approx(by_layer, rel=1e-12)
        assert list(exact.layers) == ["0", "1", "4"]
        assert [layer.parameters for layer in exact.layers.values()] == [18, 4, 27]
    # the rank of each example's C is 2, of 3 classes: 8, 8 and 6 backwards in blocks of 4, 4 and 3 of 11
    assert diagonal(GaussNewton(risk)).passes == pytest.approx(1 / 3 + 2 / 3 * (8 * 4 + 8 * 4 + 6 * 3) / 11)
    # one for each example: 4, 4 and 3
    assert exact.passes == pytest.approx(1 / 3 + 2 / 3 * (4 * 4 + 4 * 4 + 3 * 3) / 11)


def test_the_exact_diagonal_of_any_matrix_takes_unit_vectors():
    square = torch.randn(7, 7, dtype=torch.float64, generator=generator(4))
    known = Matrix(square + square.T)
    exact = diagonal(known)
    torch.testing.assert_close(exact.values, known.dense.diagonal())
    assert known.products == 7
    assert exact.passes == (1 + 2 * 4) + (1 + 2 * 3)


def test_random_signs_estimate_the_diagonal_within_their_errors():
    """The variance of an element is `sum_(j != i) A_ij**2`, that of the trace twice the sum of all A_ij**2 off it."""
    size, probes = 12, 400
    square = torch.randn(size, size, dtype=torch.float64, generator=generator(4))
    known = Matrix(square + square.T)
    estimate = diagonal(known, probes, seed=1)
    off = known.dense - torch.diag(known.dense.diagonal())
    expected = (off.square().sum(1) / probes).sqrt()
    # the standard deviation of a variance of 400 samples is some 7 % of it (kurtosis 3), that of its root 3.5 %
    torch.testing.assert_close(estimate.errors, expected, rtol=0.2, atol=0)
    assert ((estimate.values - known.dense.diagonal()).abs() < 4 * expected).all()
    assert estimate.trace_error == pytest.approx((2 * off.square().sum() / probes).sqrt().item(), rel=0.2)
    assert abs(estimate.trace - float(known.dense.trace())) < 4 * estimate.trace_error
    assert estimate.layers[""].value == estimate.trace
    assert torch.equal(diagonal(known, probes, seed=1).values, estimate.values)
    assert not torch.equal(diagonal(known, probes, seed=2).values, estimate.values)


def test_a_diagonal_matrix_is_estimated_without_error():
    known = Matrix(torch.diag(torch.arange(5.0).double()))
    estimate = diagonal(known, 2)
    assert estimate.values.tolist() == [0, 1, 2, 3, 4]
    assert not estimate.errors.any()
    with pytest.raises(ValueError, match="at least 2 probes, not 1"):
        diagonal(known, 1)


def test_traces_of_layers_share_their_products():
    module, (x, y) = perceptron(), points()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=6)
    exact, estimate = diagonal(GaussNewton(risk)), diagonal(GaussNewton(risk), 40)
    assert list(estimate.layers) == ["0", "2"]
    for name, layer in estimate.layers.items():
        assert abs(layer.value - exact.layers[name].value) < 4 * layer.error
    assert estimate.passes == pytest.approx(10 * (1 + 4 * 4 / 3))
    assert diagonal(Hessian(risk), 2).passes == pytest.approx(1 + 2 * 2)
