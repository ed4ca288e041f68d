"""The preconditioned Hessian of adaptive optimizers, against its dense matrix."""

import pytest
import torch
from torch import nn

from noiseless.analysis import Hessian, preconditioned, top_eigenvalues
from noiseless.objective import EmpiricalRisk, parameter_space, squared_error


def problem():
    torch.manual_seed(3)
    module = nn.Linear(4, 2).double()
    x = torch.randn(9, 4, dtype=torch.float64) * torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=torch.float64)
    y = torch.randn(9, 2, dtype=torch.float64)
    return EmpiricalRisk(module, squared_error, (x, y), block=4)


def dense(operator):
    return operator.product(torch.eye(len(operator.space), dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "diagonal", "shift"),
    [
        (lambda p: torch.optim.Adam(p, lr=0.01), lambda v: (v["exp_avg_sq"] / (1 - 0.999**3)).sqrt() + 1e-8, 0.0),
        (
            lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
            lambda v: (v["max_exp_avg_sq"] / (1 - 0.999**3)).sqrt() + 1e-8,
            0.0,
        ),
        (lambda p: torch.optim.RMSprop(p, lr=0.01), lambda v: v["square_avg"].sqrt() + 1e-8, 0.0),
        (lambda p: torch.optim.Adagrad(p, lr=0.01, weight_decay=0.2), lambda v: v["sum"].sqrt() + 1e-10, 0.2),
    ],
)
def test_the_preconditioned_hessian_has_the_eigenvalues_of_the_dense_one(make, diagonal, shift):
    risk = problem()
    optimizer = make(list(risk.module.parameters())[::-1])  # its order is not the space's
    for _ in range(3):
        optimizer.step(risk.closure())
    D = torch.cat([diagonal(optimizer.state[p]).reshape(-1) for p in risk.module.parameters()])
    H = dense(Hessian(risk))
    expected = torch.linalg.eigvals((H + shift * torch.eye(len(D), dtype=torch.float64)) / D[:, None]).real.max()
    scaled = preconditioned(Hessian(risk), optimizer, risk.space)
    torch.testing.assert_close(dense(scaled), dense(scaled).T)
    top = top_eigenvalues(scaled, 1, tolerance=1e-9)
    torch.testing.assert_close(top.largest.values[0], expected, rtol=1e-6, atol=0)


def test_an_optimizer_without_a_preconditioner_is_refused():
    risk = problem()
    with pytest.raises(ValueError, match="SGD has no diagonal"):
        preconditioned(Hessian(risk), torch.optim.SGD(risk.module.parameters(), lr=0.1), risk.space)
    with pytest.raises(ValueError, match="no state yet"):
        preconditioned(Hessian(risk), torch.optim.Adam(risk.module.parameters()), parameter_space(risk.module))


def test_groups_may_differ_in_their_decay():
    risk = problem()
    weight, bias = risk.module.parameters()
    optimizer = torch.optim.Adagrad([{"params": [bias], "weight_decay": 0.0}, {"params": [weight]}], weight_decay=0.2)
    for _ in range(3):
        optimizer.step(risk.closure())
    D = torch.cat([(optimizer.state[p]["sum"].sqrt() + 1e-10).reshape(-1) for p in (weight, bias)])
    W = torch.diag(torch.tensor([0.2] * weight.numel() + [0.0] * bias.numel(), dtype=torch.float64))
    expected = torch.linalg.eigvals((dense(Hessian(risk)) + W) / D[:, None]).real.max()
    top = top_eigenvalues(preconditioned(Hessian(risk), optimizer, risk.space), 1, tolerance=1e-9)
    torch.testing.assert_close(top.largest.values[0], expected, rtol=1e-6, atol=0)
