"""The registry of optimizers: its entries against what the optimizers do, and an entry from outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noiseless.analysis import stability_threshold
from noiseless.errors import UnknownNameError
from noiseless.optim import (
    OPTIMIZERS,
    Muon,
    OptimizerEntry,
    entry_of,
    make_optimizer,
    optimizer_arguments,
    optimizer_entry,
    optimizer_names,
)
from noiseless.optim.recursion import Recursion

DENSE = [name for name in optimizer_names() if not optimizer_entry(name).refusal]


def after_three_steps(name, decay):
    """Parameters `[2, 3]` after three steps on `sum(x**2) / 2`, and if the optimizer couples its decay.

    The decay is 0.1 in all: `decay` in the optimizer, and the rest in the gradient.
    """
    x = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5], [0.3, 2.0, -1.0]], dtype=torch.float64))
    optimizer = make_optimizer(name, [x], lr=0.01, weight_decay=decay)

    def closure():
        x.grad = (1 + 0.1 - decay) * x.detach().clone()  # the decay is 0.1, here or there
        return (x.detach() ** 2).sum()

    for _ in range(3):
        optimizer.step(closure)
    return x.detach(), entry_of(optimizer).couples_decay(optimizer.param_groups[0])


@pytest.mark.parametrize("name", [name for name in DENSE if "weight_decay" in optimizer_arguments(name)])
def test_a_coupled_decay_equals_one_in_the_gradient(name):
    inside, coupled = after_three_steps(name, 0.1)
    outside, _ = after_three_steps(name, 0.0)
    # twenty operations on numbers of size 1; a decoupled decay moves by some 3 * 0.01 * 0.1
    assert torch.allclose(inside, outside, rtol=1e-12, atol=1e-12) == coupled
    assert coupled or not torch.allclose(inside, outside, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DENSE)
def test_an_optimizer_that_evaluates_itself_calls_its_closure_more_than_once(name):
    x, calls = nn.Parameter(torch.tensor([[1.0, -2.0]])), 0
    optimizer = make_optimizer(name, [x], lr=1e-3)

    def closure():
        nonlocal calls
        calls += 1
        x.grad = x.detach().clone()
        return (x.detach() ** 2).sum() / 2

    optimizer.step(closure)
    assert (calls > 1) == entry_of(optimizer).evaluates_itself


@pytest.mark.parametrize("name", ["LBFGS", "DampedLBFGS"])
def test_a_history_is_counted_in_full(name):
    # 3 differences of points and of gradients, the last gradient, and the last point or direction
    x = nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    options = {"max_iter": 1} if name == "LBFGS" else {}
    optimizer = make_optimizer(name, [x], lr=0.1, history_size=3, **options)

    def closure():
        x.grad = torch.tensor([1.0, 2.0, 3.0, 4.0]) * x.detach()
        return (x.grad * x.detach()).sum() / 2

    def numbers(value):
        if isinstance(value, dict):
            return sum(map(numbers, value.values()))
        if isinstance(value, list):
            return sum(map(numbers, value))
        return value.numel() if isinstance(value, torch.Tensor) and value.numel() > 1 else 0

    for _ in range(5):
        optimizer.step(closure)
    assert numbers(dict(optimizer.state[x])) == 8 * x.numel()
    assert entry_of(optimizer).state_size(optimizer.param_groups[0]) == 8


def test_torchs_own_muon_is_not_ours():
    assert optimizer_entry("muon").kind is Muon
    x = nn.Parameter(torch.eye(2))
    assert entry_of(torch.optim.Muon([x])) == OptimizerEntry(torch.optim.Muon)
    assert optimizer_entry("Rprop") == OptimizerEntry(torch.optim.Rprop)
    assert not {"Rprop", "Adafactor"} & OPTIMIZERS.keys()


class Signed(torch.optim.Optimizer):
    """`x <- x - lr sign(g + wd x)`."""

    def __init__(self, params, lr=0.1, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure else None
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * torch.sign(p.grad + group["weight_decay"] * p)
        return loss


def test_an_entry_from_outside_is_all_that_an_optimizer_needs(monkeypatch):
    with pytest.raises(UnknownNameError, match="unknown optimizer 'signed'"):
        optimizer_entry("signed")
    entry = OptimizerEntry(Signed, coupled_decay=True, recursion=lambda settings: Recursion(settings["lr"], 0.5))
    monkeypatch.setitem(OPTIMIZERS, "Signed", entry)
    assert "Signed" in optimizer_names()
    x = nn.Parameter(torch.ones(2))
    optimizer = make_optimizer("signed", [x], lr=0.5, weight_decay=0.1)
    assert isinstance(optimizer, Signed)
    assert stability_threshold(optimizer) == pytest.approx(6.0)
    assert entry_of(optimizer) is entry
    with pytest.raises(ValueError, match=r"test_registry\.Signed takes no momentum; it takes lr, weight_decay"):
        make_optimizer("Signed", [x], momentum=0.9)
