"""The restarting search at its boundary: a value that is equal to the largest remembered one is accepted."""

from __future__ import annotations

import torch
from torch import nn

from noiseless.optim import RestartingSearch, Searched


def step(lr):
    """Where one step from x = 1 on x^2 / 2 leads, and its outcome."""
    x = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = Searched(torch.optim.SGD([x], lr=lr), RestartingSearch())

    def closure():
        x.grad = x.detach().clone()
        return (x.detach() ** 2).sum() / 2

    optimizer.step(closure)
    return float(x.detach()), optimizer.last


def test_an_equal_value_is_accepted():
    x, outcome = step(2.0)
    assert (x, outcome.size, outcome.trials, outcome.restarted) == (-1.0, 1.0, 1, False)


def test_a_larger_one_is_not():
    x, outcome = step(2.5)
    assert outcome.restarted
    assert abs(x) < 1
