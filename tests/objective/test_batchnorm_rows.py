"""Batch norm over rows that are not examples: frames in the batch dimension, two views joined, bags of instances."""

from __future__ import annotations

import copy

import oracles
import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, take_step


class Frames(nn.Module):
    """`[n, 5, 3]`, normalised over the 5 n frames."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x):
        frames = torch.tanh(self.norm(self.first(x).flatten(0, 1)))
        return self.last(frames.unflatten(0, x.shape[:2]).mean(1))


class Views(Frames):
    """Two views of each example, joined one after the other."""

    def forward(self, x):
        one, other = torch.tanh(self.norm(self.first(torch.cat([x[:, 0], x[:, 1]])))).chunk(2)
        return self.last(one * other)


class Bag(Frames):
    """All examples in one row: the mean of the block is added to its rows."""

    def forward(self, x):
        rows = self.first(x).mean(1)
        return self.last(torch.tanh(self.norm(torch.cat([rows, rows.mean(0, keepdim=True)]))[:-1]))


KINDS = {"frames": Frames, "views": Views, "bag": Bag}


def data(count=12):
    rng = problems.generator(5)
    return torch.randn(count, 5, 3, generator=rng, dtype=torch.float64), problems.points(count)[1]


def by_autograd(model, x, y, block):
    """Loss, gradient and a Hessian product of the mean over blocks, by plain autograd."""
    parameters = list(model.parameters())
    losses = [
        nn.functional.cross_entropy(copy_of(a), b) * len(b) / len(y)
        for copy_of, a, b in ((model, *parts) for parts in zip(x.split(block), y.split(block), strict=True))
    ]
    total = torch.stack(losses).sum()
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(total, parameters, create_graph=True)])
    product = torch.autograd.grad(gradient, parameters, torch.ones_like(gradient))
    return total.item(), gradient.detach(), torch.cat([g.flatten() for g in product])


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize(("block", "count"), [(12, 12), (5, 12), (4, 12)])  # with a short block of 2, and without
@pytest.mark.parametrize("kind", KINDS)
def test_all_rows_of_a_block_are_normalised_together(kind, block, count, chunk):
    model, (x, y) = problems.fill(KINDS[kind]()), data(count)
    loss, gradient, product = by_autograd(copy.deepcopy(model), x, y, block)
    risk = EmpiricalRisk(model, cross_entropy, (x, y), block=block, execution=Execution(chunk=chunk))
    assert risk.measure().loss == pytest.approx(loss, rel=1e-13)
    torch.testing.assert_close(risk.evaluate().gradient, gradient, **oracles.ROUNDING)
    torch.testing.assert_close(risk.hvp(torch.ones_like(gradient)[None])[0], product, **oracles.ROUNDING)
    if block == count:  # the penalty's gradient is then (lr / 4) strength H g
        exact = GradientPenalty(risk, 0.5, lr=4.0, method="exact").evaluate().gradient
        expected = gradient + 0.5 * risk.hvp(gradient[None])[0]
        torch.testing.assert_close(exact, expected, **oracles.ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
def test_running_statistics_are_torchs(kind):
    model, (x, y) = problems.fill(KINDS[kind]()), data()
    plain = copy.deepcopy(model).train()
    plain(x)
    risk = EmpiricalRisk(model.train(), cross_entropy, (x, y), statistics="ema")
    take_step(torch.optim.SGD(model.parameters(), lr=0.0), risk)
    torch.testing.assert_close(model.norm.running_mean, plain.norm.running_mean)
    torch.testing.assert_close(model.norm.running_var, plain.norm.running_var)


@pytest.mark.parametrize("kind", KINDS)
def test_smaller_norm_blocks_are_refused(kind):
    risk = EmpiricalRisk(problems.fill(KINDS[kind]()), cross_entropy, data(), block=6, norm_block=3)
    with pytest.raises(ValueError, match=r"batch norm 'norm' gets \d+ rows of a block of 6 examples.*the block size"):
        risk.evaluate()
