"""A searched step from a point without a finite value or gradient leaves everything as it is."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from noiseless.optim import ArmijoSearch, Searched


@pytest.mark.parametrize(("value", "slope"), [(1.0, math.nan), (1.0, math.inf), (math.nan, 1.0), (math.inf, 1.0)])
def test_nothing_moves_and_the_state_stays(value, slope):
    x = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = Searched(torch.optim.SGD([x], lr=0.1, momentum=0.9), ArmijoSearch())
    evaluations = 0

    def closure():
        nonlocal evaluations
        evaluations += 1
        x.grad = torch.tensor([slope, 1.0])
        return torch.tensor(value)

    state = copy.deepcopy(optimizer.state_dict())
    optimizer.step(closure)
    assert evaluations == 1
    assert x.tolist() == [1.0, 2.0]
    assert optimizer.state_dict() == state
    assert (optimizer.last.size, optimizer.last.trials) == (0.0, 0)
