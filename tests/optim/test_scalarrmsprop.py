"""Scalar RMSProp against its formulas written out, and its edge of stability on a quadratic."""

import copy

import problems
import pytest
import torch
from torch import nn

from noiseless.analysis import stability_threshold
from noiseless.optim import ScalarRMSprop, entry_of

CURVATURES = torch.logspace(-1, 0, 6, dtype=torch.float64)
X0 = problems.targets(1, 6, seed=3).flatten()


def run(steps, resumed_at=None, **settings):
    parts = [nn.Parameter(X0[:2].clone()), nn.Parameter(X0[2:].clone().view(2, 2))]
    optimizer = ScalarRMSprop(parts, **settings)
    for step in range(steps):
        if step == resumed_at:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = ScalarRMSprop(parts, **settings)
            optimizer.load_state_dict(state)
        for p, c in zip(parts, CURVATURES.split([2, 4]), strict=True):
            p.grad = c.view_as(p) * p.detach()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in parts]), optimizer, parts


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_equal_the_formulas(decay):
    x, v = X0, 0.0
    for _ in range(20):
        g = CURVATURES * x + decay * x
        v = 0.9 * v + 0.1 * float(g @ g)
        x = x - 0.05 * g / (v**0.5 + 1e-4)
    moved, optimizer, parts = run(20, lr=0.05, alpha=0.9, eps=1e-4, weight_decay=decay)
    torch.testing.assert_close(moved, x, rtol=1e-12, atol=1e-13)
    # the diagonal of the preconditioner is one number, and the step's edge of stability is 2 / lr of H / D
    D = entry_of(optimizer).diagonal(optimizer.param_groups[0], optimizer.state[parts[1]])
    assert float(D) == pytest.approx(v**0.5 + 1e-4, rel=1e-12)
    assert stability_threshold(optimizer) == pytest.approx(2 / 0.05)


def test_a_state_that_is_saved_and_loaded_has_the_same_bits():
    assert torch.equal(run(10, lr=0.05)[0], run(10, 4, lr=0.05)[0])


def test_parameters_without_a_gradient_stay():
    parts = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    parts[0].grad = torch.ones(2)
    ScalarRMSprop(parts, weight_decay=0.1).step()
    assert torch.equal(parts[1].detach(), torch.ones(3))


@pytest.mark.parametrize(("name", "value"), [("alpha", 1.0), ("lr", -1.0), ("eps", float("inf")), ("weight_decay", -1)])
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        ScalarRMSprop([nn.Parameter(torch.ones(2))], **{name: value})
