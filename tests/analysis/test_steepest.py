"""Sharpness in spectral norms, against closed forms and all corners of a box; and Muon's steps at its edge."""

import itertools

import pytest
import torch
from torch import nn

from noiseless.analysis import Hessian, spectral_sharpness, steepest, top_eigenvalues
from noiseless.objective import EmpiricalRisk, parameter_space, squared_error
from noiseless.optim import Muon
from noiseless.optim.registry import entry_of


class Dense:
    def __init__(self, module, matrix):
        self.space, self.matrix = parameter_space(module), matrix

    def product(self, V):
        return V @ self.matrix

    def passes(self, vectors):
        return float(vectors)


def rows(rows_, columns):
    torch.manual_seed(1)
    return nn.Linear(columns, rows_, bias=False).double()


@pytest.mark.parametrize(("m", "n"), [(3, 3), (2, 4), (4, 2)])
def test_for_a_curvature_of_the_columns_it_is_the_sum_of_the_largest(m, n):
    """`v . H v = ||A V||_F^2 = tr(V^T A^T A V)`; over ||V||_2 <= r it is r^2 times the sum of the largest min(m, n)
    eigenvalues of A^T A, as V V^T has at most n eigenvalues, none above r^2."""
    net = rows(m, n)
    A = torch.randn(m, m, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    H = torch.kron(A.T @ A, torch.eye(n, dtype=torch.float64))
    values = torch.linalg.eigvalsh(A.T @ A)
    expected = 0.25 * float(values.flip(0)[: min(m, n)].sum())
    found = spectral_sharpness(Dense(net, H), {"weight": 0.5}, float(values[-1]), tolerance=1e-9)
    assert found.converged
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.bound == pytest.approx(0.25 * float(values[-1]) * min(m, n))
    V = found.directions[0].reshape(m, n)
    assert float(torch.linalg.matrix_norm(V, 2)) <= 0.5 * (1 + 1e-9)
    assert float(found.directions[0] @ H @ found.directions[0]) == pytest.approx(found.value)


def test_for_matrices_of_one_element_it_is_the_best_corner_of_a_box():
    """Five 1x1 matrices: the set is a box, and a convex quadratic has its maximum at one of the 32 corners."""
    net = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(5)]).double()
    B = torch.randn(5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    H, radii = B @ B.T, torch.tensor([1.0, 0.5, 2.0, 0.1, 1.5], dtype=torch.float64)
    corners = [torch.tensor(c, dtype=torch.float64) * radii for c in itertools.product((-1.0, 1.0), repeat=5)]
    names = parameter_space(net).names
    found = spectral_sharpness(
        Dense(net, H), dict(zip(names, radii.tolist(), strict=True)), float(torch.linalg.eigvalsh(H)[-1]), count=12
    )
    assert found.value == pytest.approx(max(float(c @ H @ c) for c in corners), rel=1e-9)
    assert found.value <= found.bound


def test_steepest_has_the_dual_norm_as_its_slope():
    net = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 2)).double()
    space = parameter_space(net)
    g = torch.randn(len(space), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    radii = {"0.weight": 0.5, "2.weight": 2.0}
    v, dual = steepest(g, space, radii)
    assert float(g @ v) == pytest.approx(dual)
    parts = space.split(v)
    assert not parts["0.bias"].any() and not parts["2.bias"].any()
    for name, radius in radii.items():
        singular = torch.linalg.svdvals(parts[name].flatten(1))
        torch.testing.assert_close(singular, torch.full_like(singular, radius))


@pytest.mark.parametrize("share", [0.97, 1.03])
def test_muon_without_momentum_raises_a_quadratic_just_above_its_edge(share):
    """f = ||W||_F^2 / 2 on 3x3 from W = c Q, Q orthogonal: the sharpness is 3, ||g||_* = 3 c, the edge 6 c / lr.

    A step makes it (c - lr) Q, which is longer just where lr > 2 c. A polynomial with p(1) = 1 and p'(1) = 0, iterated
    20 times, makes NS exact.
    """
    net = rows(3, 3)
    c, lr = 1.0, 2 * share
    Q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64))
    with torch.no_grad():
        net.weight.copy_(c * Q)
    muon = Muon(
        net.parameters(), lr=lr, momentum=0.0, nesterov=False, weight_decay=0.0, ns_steps=20,
        ns_coefficients=(1.875, -1.25, 0.375),
    )  # fmt: skip
    radii = {"weight": entry_of(muon).radii(muon)[net.weight]}
    H = torch.eye(9, dtype=torch.float64)
    found = spectral_sharpness(Dense(net, H), radii, 1.0)
    edge = 2 * steepest(parameter_space(net).theta.detach(), parameter_space(net), radii)[1] / lr
    assert found.value == pytest.approx(3)
    assert edge == pytest.approx(6 * c / lr)
    net.weight.grad = net.weight.detach().clone()
    muon.step()
    assert (float(net.weight.detach().norm()) > 3**0.5 * c) is (found.value > edge) is (share > 1)


def test_muons_radii_are_the_lengths_of_its_steps():
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(2, 5, 2), nn.Flatten(), nn.Linear(5, 2)).double()
    muon = Muon(net.parameters(), lr=0.1, weight_decay=0.0, ns_steps=30, ns_coefficients=(1.875, -1.25, 0.375),
                adjust_lr_fn="match_rms_adamw", last_lr_ratio=0.5)  # fmt: skip
    before = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    muon.step()
    radii = entry_of(muon).radii(muon)
    moved = {p: p.detach() - b for p, b in zip(net.parameters(), before, strict=True)}
    assert set(radii) == {net[0].weight, net[2].weight}
    for p, radius in radii.items():
        assert float(torch.linalg.matrix_norm(moved[p].flatten(1), 2)) == pytest.approx(0.1 * radius, rel=1e-6)


def test_over_a_risk_it_lies_between_the_steps_own_curvature_and_the_bound():
    net = nn.Linear(3, 2).double()
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    risk = EmpiricalRisk(net, squared_error, (x, x[:, :2]), block=3)
    largest = float(top_eigenvalues(Hessian(risk)).largest.values[0])
    v, _ = steepest(risk.evaluate().gradient, risk.space, {"weight": 1.0})
    found = spectral_sharpness(Hessian(risk), {"weight": 1.0}, largest, v[None])
    assert float(v @ risk.hvp(v[None])[0]) <= found.value * (1 + 1e-12) <= found.bound * (1 + 1e-9)
    with pytest.raises(ValueError, match="no parameter has a radius"):
        spectral_sharpness(Hessian(risk), {}, largest)
