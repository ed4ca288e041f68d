"""Density and trace, against known spectra and dense matrices."""

import math

import numpy as np
import pytest
import torch
from matrices import matrix
from problems import generator

from noiseless.analysis import density, trace
from noiseless.analysis.density import Density
from noiseless.analysis.operator import random_vectors


def test_density_has_the_moments_of_the_spectrum():
    values = torch.cat((torch.randn(500, generator=generator(2)) * 0.3, torch.tensor([4.0, 6.0])))
    known = matrix(values)
    quadrature = density(known, probes=40, steps=20)
    assert quadrature.nodes.shape == quadrature.weights.shape == (40, 20)
    torch.testing.assert_close(quadrature.weights.sum(1), torch.ones(40, dtype=torch.float64))
    for power in (1, 2, 3):
        estimate = (quadrature.weights * quadrature.nodes**power).sum(1)
        error = float(estimate.std() / math.sqrt(40))
        assert abs(float(estimate.mean() - (values.double() ** power).mean())) < 4 * error
    grid, width = quadrature.grid(2000, share=0.01)
    curve = quadrature.at(grid, width)
    assert torch.trapezoid(curve, grid).item() == pytest.approx(1, abs=1e-6)
    assert grid[0] < values.min()
    assert grid[-1] > values.max()


def test_each_probe_is_gauss_quadrature():
    """With m steps the moments of v^T A^k v are exact up to k = 2 m - 1."""
    known = matrix(torch.linspace(-1, 2, 60))
    quadrature = density(known, probes=1, steps=5)
    v = random_vectors(known.space, 0, "density", 0, 1)[0]
    v = v / v.norm()
    w = v
    for power in range(10):
        moment = float((quadrature.weights[0] * quadrature.nodes[0] ** power).sum())
        assert moment == pytest.approx(float(v @ w), rel=1e-9, abs=1e-12)
        w = known.dense @ w


def test_density_of_an_invariant_subspace_ends_early():
    known = matrix([2.0, 2.0, 2.0, 5.0])
    quadrature = density(known, probes=3, steps=4)
    # v and A v span an invariant subspace, as A has two eigenvalues: 2 products for each probe, of 3 passes each
    assert known.products == 6
    assert quadrature.passes == 18
    expected = torch.tensor([[2.0, 5.0]] * 3, dtype=torch.float64)
    torch.testing.assert_close(quadrature.nodes[:, :2], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(quadrature.weights[:, :2].sum(1), torch.ones(3, dtype=torch.float64))
    assert not quadrature.weights[:, 2:].any()


@pytest.mark.parametrize(("values", "extent"), [([-3.0, 2.0], 5.0), ([1.0, 4.0], 4.0), ([-4.0, -1.0], 4.0)])
def test_the_width_is_a_share_of_the_range_or_of_the_largest_magnitude(values, extent):
    nodes = torch.tensor([values], dtype=torch.float64)
    points, width = Density(nodes, torch.full_like(nodes, 0.5), 0.0).grid(11, share=0.1)
    assert width == pytest.approx(0.1 * extent)
    assert points[0] == pytest.approx(values[0] - 5 * width)
    assert points[-1] == pytest.approx(values[1] + 5 * width)


def test_trace_of_low_rank_is_exact():
    values = torch.zeros(80)
    values[:4] = torch.tensor([9.0, -3.0, 2.0, 0.5])
    estimate = trace(matrix(values), products=30)
    assert estimate.value == pytest.approx(8.5, rel=1e-9)
    assert estimate.error < 1e-9
    assert estimate.products == 24  # 10 for the sketch, of which 4 directions are left, and 10 for the rest


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_six_products_give_the_trace_of_hutchs_formula(seed):
    """tr(Q^T A Q) + mean of g^T A g, Q an orthonormal basis of A S and g outside of its span: 2 vectors in S and G."""
    known = matrix([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    estimate = trace(known, products=6, seed=seed)
    assert estimate.products == known.products == 6
    S, G = (random_vectors(known.space, seed, "trace", first, 2) for first in (0, 2))
    Q, _ = torch.linalg.qr(known.dense @ S.T)
    G = G - G @ Q @ Q.T
    rest = (G @ known.dense @ G.T).diagonal()
    assert estimate.value == pytest.approx(float((Q.T @ known.dense @ Q).trace() + rest.mean()), rel=1e-12)
    # the standard error of a mean of two: |a - b| / 2
    assert estimate.error == pytest.approx(float((rest[0] - rest[1]).abs() / 2), rel=1e-11)


def test_a_trace_from_six_products_is_unbiased():
    known = matrix([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    estimates = np.array([trace(known, products=6, seed=seed).value for seed in range(200)])
    error = estimates.std(ddof=1) / math.sqrt(200)
    assert error < 0.7
    assert (
        abs(estimates.mean() - 28) < 3 * error
    )  # the part outside of Q is 28 - 7 - 6 = 15 or more, so half of it is seen


def test_trace_is_within_its_error():
    values = torch.randn(300, generator=generator(4)).double()
    errors = []
    for seed in range(30):
        estimate = trace(matrix(values), products=60, seed=seed)
        errors.append((estimate.value - float(values.sum())) / estimate.error)
    assert abs(np.mean(errors)) < 4 / math.sqrt(30)
    assert 0.5 < np.std(errors) < 2
