"""Extreme eigenvalues, against dense matrices computed without the code under test."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import Diagonal, Matrix, matrix
from problems import COUNT, fill, generator, perceptron, with_batch_norm
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.func import functional_call, grad, jacrev

from noiseless.analysis import Hessian, as_linear_operator, density, top_eigenvalues, trace
from noiseless.objective import EmpiricalRisk, GradientPenalty, cross_entropy


def examples(count=COUNT):
    rng = generator(5)
    return torch.randn(count, 3, generator=rng, dtype=torch.float64), torch.arange(count) % 3


def dense_hessian(module, x, y):
    """The Hessian of the mean cross entropy by torch.func, over flat parameters; batch norm sees the whole batch."""
    module = copy.deepcopy(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    names = [name for name, _ in module.named_parameters()]
    shapes = [p.shape for p in module.parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    def loss(theta):
        parts = theta.split([s.numel() for s in shapes])
        state = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        return nn.functional.cross_entropy(functional_call(module, state, (x,)), y)

    return jacrev(grad(loss))(flat)


@pytest.mark.parametrize(("largest", "smallest"), [(1, 0), (3, 0), (0, 2), (3, 2)])
def test_the_extreme_eigenvalues_of_a_known_spectrum_are_found(largest, smallest):
    values = torch.cat((torch.linspace(-2, 1, 90), torch.tensor([3.0, 5.0, 9.0, -4.0, -3.5])))
    known = matrix(values)
    spectrum = top_eigenvalues(known, largest, smallest, tolerance=1e-7, most=400)
    rising = values.double().sort().values
    assert spectrum.converged
    torch.testing.assert_close(spectrum.largest.values, rising.flip(0)[:largest], rtol=0, atol=1e-9)
    torch.testing.assert_close(spectrum.smallest.values, rising[:smallest], rtol=0, atol=1e-9)
    assert spectrum.products == known.products
    for pairs in (spectrum.largest, spectrum.smallest):
        residual = known.product(pairs.vectors) - pairs.values[:, None] * pairs.vectors
        torch.testing.assert_close(residual.norm(dim=1), pairs.residuals, rtol=1e-3, atol=1e-9)
        assert (pairs.residuals <= 1e-7 * 9).all()
        torch.testing.assert_close(pairs.vectors.norm(dim=1), torch.ones(len(pairs.values), dtype=torch.float64))


def test_where_a_subspace_is_invariant_another_vector_is_drawn_until_there_are_enough_pairs():
    """Every vector is an eigenvector, so that no residual adds a direction."""
    known = matrix(torch.full((6,), 2.0))
    spectrum = top_eigenvalues(known, 4, most=20)
    assert spectrum.converged
    assert spectrum.products == known.products == 4
    torch.testing.assert_close(spectrum.largest.values, torch.full((4,), 2.0, dtype=torch.float64))
    overlaps = spectrum.largest.vectors @ spectrum.largest.vectors.T
    torch.testing.assert_close(overlaps, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 4), st.integers(0, 3))
def test_the_extreme_eigenvalues_of_random_matrices_are_found(seed, size, largest, smallest):
    square = torch.randn(size, size, dtype=torch.float64, generator=generator(seed))
    known = Matrix(square + square.T)
    largest, smallest = min(largest, size), min(smallest, size - min(largest, size))
    spectrum = top_eigenvalues(known, largest, smallest, tolerance=1e-8, most=2000, seed=seed)
    exact = torch.linalg.eigvalsh(known.dense)
    assert spectrum.converged
    torch.testing.assert_close(spectrum.largest.values, exact.flip(0)[:largest], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(spectrum.smallest.values, exact[:smallest], rtol=1e-7, atol=1e-7)


def test_all_eigenvalues_of_a_small_matrix_are_found():
    spectrum = top_eigenvalues(matrix([3.0, 1.0, -2.0]), 3, tolerance=1e-9)
    torch.testing.assert_close(spectrum.largest.values, torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64))


def test_a_double_eigenvalue_is_found_from_two_starts():
    known = matrix([4.0, 4.0, 1.0, 0.5, 0.1])
    start = torch.randn(2, 5, dtype=torch.float64, generator=generator(1))
    spectrum = top_eigenvalues(known, 2, start=start, tolerance=1e-9)
    torch.testing.assert_close(spectrum.largest.values, torch.tensor([4.0, 4.0], dtype=torch.float64))


def test_the_zero_matrix_has_eigenvalues_of_zero():
    spectrum = top_eigenvalues(matrix([0.0] * 6), 2)
    assert spectrum.converged
    assert spectrum.largest.values.tolist() == pytest.approx([0, 0], abs=1e-12)


def test_from_one_start_several_eigenvalues_cost_few_products_more():
    """From one start the residuals are collinear, so several eigenvalues cost no more products than Lanczos does."""
    values = torch.cat((torch.linspace(0, 1, 200), torch.tensor([2.0, 3.0, 4.0])))
    one, three = matrix(values), matrix(values)
    alone = top_eigenvalues(one, 1, tolerance=1e-4)
    together = top_eigenvalues(three, 3, tolerance=1e-4)
    assert alone.converged
    assert together.converged
    assert together.products < 2 * alone.products


def test_the_basis_is_restarted_only_where_it_is_full():
    spectrum = torch.cat([torch.linspace(0, 1, 400), torch.tensor([1.05, 1.2])])
    pairs = top_eigenvalues(matrix(spectrum), 1, tolerance=1e-6)
    # 22 products with a basis of 20; a basis that is restarted at every turn is a power iteration of two vectors: 41
    assert pairs.converged and pairs.products < 30


def test_a_warm_start_saves_products():
    values = torch.cat((torch.linspace(0, 1, 200), torch.tensor([1.1, 1.2, 1.3])))
    known = matrix(values)
    cold = top_eigenvalues(known, 2, tolerance=1e-4)
    noise = torch.randn(2, len(values), dtype=torch.float64, generator=generator(3))
    warm = top_eigenvalues(known, 2, tolerance=1e-4, start=cold.largest.vectors + 1e-3 * noise / noise.norm())
    assert warm.products < 0.75 * cold.products
    torch.testing.assert_close(warm.largest.values, cold.largest.values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("outliers", [[2.0, 2.2], [2.0, 2.05, 2.2], [1.5, 1.6]])
@pytest.mark.parametrize("seed", range(4))
def test_a_start_at_another_eigenvector_leads_to_the_largest_eigenvalue(outliers, seed):
    """As eigenvalues that cross in a run: the vectors of the step before are those of the second, and the third."""
    values = torch.cat((torch.linspace(-0.5, 1, 3000), torch.tensor(outliers)))
    diagonal = Diagonal(values.double())
    wrong = torch.zeros(len(outliers) - 1, len(values), dtype=torch.float64)
    wrong[range(len(wrong)), range(3000, 3000 + len(wrong))] = 1
    spectrum = top_eigenvalues(diagonal, 1, start=wrong, tolerance=1e-4, seed=seed)
    assert spectrum.converged
    assert spectrum.largest.values.item() == pytest.approx(outliers[-1], rel=1e-6)
    smallest = top_eigenvalues(Diagonal(-values.double()), 0, 1, start=wrong, tolerance=1e-4, seed=seed)
    assert smallest.smallest.values.item() == pytest.approx(-outliers[-1], rel=1e-6)


def test_a_probe_ends_where_there_is_nothing_left():
    """In three dimensions, and from a start of zeros."""
    known = matrix([3.0, 1.0, -2.0])
    start = torch.eye(3, dtype=torch.float64)[:2]
    assert top_eigenvalues(known, 1, start=start).products == 3
    assert top_eigenvalues(known, 1, start=0 * start).largest.values.item() == pytest.approx(3)


def test_restarts_keep_memory_small():
    """Far more products than the basis has room for."""
    values = torch.cat((torch.linspace(0, 1, 400), torch.tensor([1.005])))
    spectrum = top_eigenvalues(matrix(values), 1, tolerance=1e-6, most=2000)
    assert spectrum.converged
    assert spectrum.products > 40
    assert spectrum.largest.values.item() == pytest.approx(1.005, abs=1e-7)


def test_too_few_products_do_not_converge():
    known = matrix(torch.linspace(0, 1, 100))
    spectrum = top_eigenvalues(known, 1, tolerance=1e-9, most=4)
    assert not spectrum.converged
    assert spectrum.products == known.products == 4
    assert abs(spectrum.largest.values.item() - 1.0) <= spectrum.largest.residuals.item()  # an eigenvalue is that near


def test_single_precision_reaches_its_tolerance():
    values = torch.cat((torch.linspace(-1, 1, 300), torch.tensor([20.0, 40.0])))
    spectrum = top_eigenvalues(matrix(values, dtype=torch.float32), 2, tolerance=1e-5)
    assert spectrum.converged
    assert spectrum.largest.values.tolist() == pytest.approx([40, 20], rel=1e-5)


@pytest.mark.parametrize("make", [perceptron, with_batch_norm])
def test_the_eigenvalues_of_a_small_net_equal_the_dense_ones(make):
    module = make()
    x, y = examples()
    risk = EmpiricalRisk(module, cross_entropy, (x, y))  # one block: batch norm sees what torch.func sees
    exact = torch.linalg.eigvalsh(dense_hessian(module.train(), x, y))
    spectrum = top_eigenvalues(Hessian(risk), 3, 2, tolerance=1e-9)
    torch.testing.assert_close(spectrum.largest.values, exact.flip(0)[:3], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(spectrum.smallest.values, exact[:2], rtol=1e-8, atol=1e-10)
    assert spectrum.passes == sum_of_passes(spectrum.products)


def sum_of_passes(products):
    """From one start each sweep has one vector: a gradient and one product, three passes."""
    return pytest.approx(3 * products)


def test_scipy_gives_the_eigenvalues_of_the_same_objective():
    module = perceptron()
    risk = EmpiricalRisk(module, cross_entropy, examples(), block=4)
    linear = as_linear_operator(risk)
    exact = torch.linalg.eigvalsh(dense_hessian(module, *examples()))
    assert eigsh(linear, 2, which="LA", return_eigenvectors=False) == pytest.approx(exact[-2:].numpy(), rel=1e-8)
    several = np.eye(len(risk.space))[:, :3]
    assert linear.matmat(several).shape == several.shape
    assert linear.dtype == np.float64


def test_the_penalised_objective_has_its_own_spectrum():
    module = perceptron()
    objective = GradientPenalty(EmpiricalRisk(module, cross_entropy, examples(), block=4), 3.0, lr=0.5)
    linear = as_linear_operator(objective)
    dense = torch.from_numpy(linear.matmat(np.eye(len(objective.space))))
    torch.testing.assert_close(dense, dense.T)
    spectrum = top_eigenvalues(Hessian(objective), 1, tolerance=1e-9)
    torch.testing.assert_close(spectrum.largest.values[0], torch.linalg.eigvalsh(dense)[-1])
    assert spectrum.passes == pytest.approx(9 * spectrum.products)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda a: top_eigenvalues(a, 0), ("between 1 and 6", "0 largest")),
        (lambda a: top_eigenvalues(a, -1, 3), ("between 1 and 6", "-1 largest")),
        (lambda a: top_eigenvalues(a, 5, 4), ("between 1 and 6", "5 largest", "4 smallest")),
        (lambda a: top_eigenvalues(a, 1, tolerance=0), ("tolerance", "not 0")),
        (lambda a: top_eigenvalues(a, 3, most=2), ("3 eigenvalues", "2 are too few")),
        (lambda a: top_eigenvalues(a, 1, start=torch.ones(1, 5, dtype=torch.float64)), ("[k, 6]", "[1, 5]")),
        (lambda a: density(a, probes=0), ("at least 1 probe", "0")),
        (lambda a: trace(a, products=5), ("at least 6", "5")),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call, names):
    with pytest.raises(ValueError) as error:
        call(matrix([1.0, 2, 3, 4, 5, 6]))
    for name in names:
        assert name in str(error.value)


@pytest.mark.parametrize("call", [top_eigenvalues, density, trace])
def test_products_that_are_not_finite_are_refused(call):
    known = matrix([1.0, 2, 3, 4, 5, 6])
    known.dense[2, 2] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        call(known)


def test_parameters_and_buffers_do_not_change():
    module = fill(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)))
    risk = EmpiricalRisk(module, cross_entropy, examples(), block=4)
    before = {name: t.clone() for name, t in module.state_dict().items()}
    top_eigenvalues(Hessian(risk), 1)
    for name, t in module.state_dict().items():
        assert torch.equal(t, before[name]), name
