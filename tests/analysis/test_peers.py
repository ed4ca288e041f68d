"""Sharpness and trace against other programs: scipy's ARPACK and curvlinops."""

import warnings

import numpy as np
import pytest
import torch
from problems import fill
from scipy.sparse.linalg import eigsh
from torch import nn

from noiseless import models
from noiseless.analysis import Hessian, as_linear_operator, top_eigenvalues, trace
from noiseless.objective import EmpiricalRisk, cross_entropy

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # a package that it imports scripts its functions
    from curvlinops import HessianLinearOperator, hutchpp_trace

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # in curvlinops


def curvlinops_hessian(module, x, y, block):
    """Curvlinops' Hessian of the mean loss, block by block, as a scipy operator."""
    batches = list(zip(x.split(block), y.split(block), strict=True))
    parameters = list(module.parameters())
    operator = HessianLinearOperator(module, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False)
    return operator, operator.to_scipy()


def smooth():
    """A small convolutional net without batch norm, which the programs treat differently."""
    return fill(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 36, 4)))


def images(count, size, channels=1, classes=4):
    rng = torch.Generator().manual_seed(7)
    return torch.randn(count, channels, size, size, generator=rng).double(), torch.arange(count) % classes


def test_a_small_net_has_the_same_spectrum():
    module, (x, y) = smooth(), images(24, 8)
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=8)
    spectrum = top_eigenvalues(Hessian(risk), 3, 1, tolerance=1e-8)
    _, reference = curvlinops_hessian(module, x, y, 8)
    top = eigsh(reference, 3, which="LA", return_eigenvectors=False)[::-1]
    low = eigsh(reference, 1, which="SA", return_eigenvectors=False)
    assert spectrum.largest.values.numpy() == pytest.approx(top, rel=1e-8)
    assert spectrum.smallest.values.numpy() == pytest.approx(low, rel=1e-6)
    v = np.random.default_rng(0).standard_normal(len(risk.space))
    assert as_linear_operator(risk) @ v == pytest.approx(reference @ v, rel=1e-9, abs=1e-12)


def test_a_small_net_has_the_same_trace():
    # The rank is 78, of 466: 18 of 6 examples with 4 classes, twice 30 of the second derivatives in the 30
    # parameters of the convolution (those in the linear layer are 0). So a sketch of 80 vectors gives the trace exactly
    module, (x, y) = smooth(), images(6, 8)
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=3)
    estimate = trace(Hessian(risk), products=240)
    torch.manual_seed(0)
    operator, scipy_operator = curvlinops_hessian(module, x, y, 3)
    dense = np.trace(scipy_operator @ np.eye(len(risk.space)))
    assert estimate.products == 80 + 78 + 80
    # float64: sums of some hundred terms below 1e3, each rounded by 1e-16
    assert estimate.value == pytest.approx(dense, rel=1e-11)
    assert estimate.value == pytest.approx(float(hutchpp_trace(operator, num_matvecs=240)), rel=1e-11)
    assert estimate.error < 1e-11


@pytest.mark.soak
def test_resnet18_on_a_subset_has_the_same_spectrum():
    """Batch norm has its running statistics, because curvlinops has no norm blocks."""
    module = models.build("resnet18", 3, 10, seed=0).eval()
    x, y = images(32, 32, channels=3, classes=10)
    x = x.float()
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=16)
    spectrum = top_eigenvalues(Hessian(risk), 2, tolerance=1e-3)
    assert spectrum.converged
    ours = eigsh(as_linear_operator(risk), 2, which="LA", tol=1e-3, return_eigenvectors=False)[::-1]
    _, reference = curvlinops_hessian(module, x, y, 16)
    peers = eigsh(reference, 2, which="LA", tol=1e-3, return_eigenvectors=False)[::-1]
    print(f"\nours {spectrum.largest.values.tolist()} ({spectrum.products} products), scipy {ours}, curvlinops {peers}")
    assert spectrum.largest.values.numpy() == pytest.approx(ours, rel=1e-3)
    assert spectrum.largest.values.numpy() == pytest.approx(peers, rel=1e-3)
