"""Block gradients, orthogonalised one by one: against the singular value decomposition, and what it does to noise."""

from __future__ import annotations

from dataclasses import replace

import problems
import pytest
import torch
from oracles import by_svd
from torch import nn

from noiseless.objective import EmpiricalRisk, Execution, GradientPenalty, parameter_space
from noiseless.objective.losses import cross_entropy
from noiseless.optim import orthogonal_blocks

ROUNDING = {"rtol": 1e-9, "atol": 1e-10}


def drawn(space, rows, seed=3, dtype=torch.float64):
    return torch.randn(rows, len(space), generator=problems.generator(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("module", [problems.normed(), problems.convolution()])
def test_matrices_and_kernels_are_orthogonalised_and_the_others_stay(module):
    space = parameter_space(module)
    given = drawn(space, 3)
    kept = given.clone()
    found = orthogonal_blocks(space)(given)
    assert torch.equal(given, kept)  # not in place
    for row, own in zip(given, found, strict=True):
        for g, made in zip(space.split(row).values(), space.split(own).values(), strict=True):
            if g.ndim > 1:
                torch.testing.assert_close(made.flatten(1), by_svd(g.flatten(1)), **ROUNDING)
            else:
                assert torch.equal(made, g)


def test_the_bits_of_a_block_do_not_depend_on_its_neighbours():
    space = parameter_space(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(72, 5)))
    transform, given = orthogonal_blocks(space), drawn(space, 7, dtype=torch.float32)
    together = transform(given)
    for k in range(7):
        assert torch.equal(transform(given[k : k + 1])[0], together[k])


def test_what_blocks_agree_on_stays_and_noise_averages_out():
    module = nn.Linear(12, 12, bias=False).double()
    space, blocks = parameter_space(module), 64
    shared = torch.zeros(12, 12, dtype=torch.float64)
    shared[:6, :6] = 4 * torch.eye(6)
    own = drawn(space, blocks).view(blocks, 12, 12) * 0.3
    mean = orthogonal_blocks(space)((shared + own).flatten(1)).mean(0).view(12, 12)
    agreed, noise = torch.linalg.svdvals(mean[:6, :6]), torch.linalg.svdvals(mean[6:, 6:])
    assert agreed.min() > 0.6
    assert noise.max() < 6 / blocks**0.5
    # the gradient's own orthogonalisation brings both near 1
    whole = torch.linalg.svdvals(by_svd((shared + own).mean(0))[6:, 6:])
    assert whole.median() > 5 * noise.median()


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_the_risk_adds_up_what_the_transform_makes_of_each_block(chunk):
    module, data = problems.perceptron(), problems.points()
    plain = EmpiricalRisk(module, cross_entropy, data, block=3, execution=Execution(chunk=chunk))
    risk = replace(plain, block_transform=orthogonal_blocks(plain.space))
    assert (plain.exact, risk.exact, risk.raw().exact) == (True, False, True)
    expected = torch.zeros(len(plain.space), dtype=torch.float64)
    for number, count in enumerate((3, 3, 3, 2)):
        for part, g in zip(
            plain.space.split(expected).values(), plain.space.split(plain.block_gradient(number)).values(), strict=True
        ):
            part += (by_svd(g) if g.ndim > 1 else g) * count / problems.COUNT
    found, unchanged = risk.evaluate(), plain.evaluate()
    torch.testing.assert_close(found.gradient, expected, **ROUNDING)
    assert found.loss == unchanged.loss
    assert torch.equal(found.block_square_norms, unchanged.block_square_norms)  # those of the gradients
    assert torch.equal(risk.raw().evaluate().gradient, unchanged.gradient)


def test_a_penalty_on_the_full_gradient_is_on_the_gradient_itself():
    module, data = problems.perceptron(), problems.points()
    risk = EmpiricalRisk(module, cross_entropy, data, block=3)
    values = [
        GradientPenalty(each, 0.5, lr=0.3, full_strength=0.4).evaluate().penalty
        for each in (risk, EmpiricalRisk(module, cross_entropy, data, block=3, block_transform=torch.zeros_like))
    ]
    assert values[0] == values[1] > 0
