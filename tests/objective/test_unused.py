"""Parameters that the value does not depend on: no gradient, as in torch's own loop, for any way of computing."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace

import oracles
import problems
import pytest
import torch
from torch import nn

from noiseless import (
    EmpiricalRisk,
    Execution,
    GradientPenalty,
    SharpnessAware,
    cross_entropy,
    parameter_space,
    take_step,
)
from noiseless.analysis import Hessian, preconditioned
from noiseless.objective import BlockClip, reach
from noiseless.optim import (
    FISTA,
    DampedLBFGS,
    Muon,
    Searched,
    StrongWolfeSearch,
    additive_noise,
    aggregate,
    chain,
    clip_norm,
    lars,
)


class TwoHeads(nn.Module):
    """Uses the first head; the second has parameters that the loss does not reach."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.dead = nn.Parameter(torch.zeros(3))  # reached, but its gradient is 0

    def forward(self, x):
        return self.one(x) + (self.dead * 0.0)


class Experts(nn.Module):
    """Each block goes to one expert, by its mean; the third is for nothing."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def forward(self, x):
        return self.experts[int(x.mean() > 0)](x)


UNUSED = ("two.weight", "two.bias")


def two_heads() -> nn.Module:
    return problems.fill(TwoHeads())


@pytest.mark.parametrize(("block", "chunk"), [(None, 1), (3, 1), (3, 2)])
def test_the_same_parameters_are_unused_however_blocks_are_computed(block, chunk):
    module = two_heads()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=block, execution=Execution(chunk=chunk))
    for objective in (risk, GradientPenalty(risk, 0.5, lr=0.1), BlockClip(risk, 0.1), SharpnessAware(risk, 0.05)):
        evaluation = objective.evaluate()
        assert evaluation.unused == UNUSED
        assert not any(part.any() for name, part in risk.space.split(evaluation.gradient).items() if name in UNUSED)
    take_step(torch.optim.SGD(module.parameters(), lr=0.1), risk)
    assert [p.grad is None for p in module.parameters()] == [False, False, False, True, True]
    assert module.dead.grad is not None


@pytest.mark.parametrize("frozen", [True, False])
def test_what_is_unused_follows_a_module_that_is_frozen_or_trains_another_head(frozen):
    module = two_heads()
    for head in (module.one, module.two):
        head.requires_grad_(not frozen)
        module.one, module.two = module.two, module.one
        risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=3, execution=Execution(chunk=2))
        expected = [name for name, p in module.named_parameters() if name.startswith("two") and p.requires_grad]
        assert list(risk.evaluate().unused) == expected


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [0, 0]])
def test_an_expert_that_some_block_uses_is_used(order):
    module = problems.fill(Experts())
    x = torch.cat([torch.randn(4, 3, generator=problems.generator()).double() + (10 if use else -10) for use in order])
    data = (x, torch.arange(8) % 3)
    unused = [f"experts.{k}.{name}" for k in range(3) if k not in order for name in ("weight", "bias")]
    for chunk in (1, 2):
        with pytest.warns(UserWarning, match=r"torch\.func\.vmap") if chunk == 2 else nullcontext():
            risk = EmpiricalRisk(copy.deepcopy(module), cross_entropy, data, block=4, execution=Execution(chunk=chunk))
            evaluation = risk.evaluate()
        assert list(evaluation.unused) == unused


def settings_of(optimizer: type[torch.optim.Optimizer]) -> dict[str, float]:
    return {"weight_decay": 0.1} | ({"momentum": 0.9} if optimizer in (torch.optim.SGD, torch.optim.RMSprop) else {})


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adagrad,
        torch.optim.NAdam, FISTA, DampedLBFGS, Muon,
    ],
)  # fmt: skip
def test_optimizers_leave_them_as_a_plain_loop_does(optimizer):
    module, data = two_heads(), problems.points()
    plain = copy.deepcopy(module)
    ours, theirs = (optimizer(m.parameters(), lr=0.1, **settings_of(optimizer)) for m in (module, plain))
    risk, start = EmpiricalRisk(module, cross_entropy, data, block=4), copy.deepcopy(module.two.state_dict())
    for p in module.parameters():  # left over from another loop
        p.grad = torch.ones_like(p)
    for _ in range(4):
        take_step(ours, risk)
        theirs.zero_grad()
        nn.functional.cross_entropy(plain(data[0]), data[1]).backward()
        theirs.step()
    assert problems.same_bits(module.two.state_dict(), start)
    torch.testing.assert_close(oracles.theta(module), oracles.theta(plain), rtol=1e-8, atol=1e-10)


def test_a_searched_step_and_torchs_lbfgs_leave_them():
    for make in (
        lambda p: Searched(torch.optim.SGD(p, lr=1.0, weight_decay=0.1), StrongWolfeSearch()),
        lambda p: Searched(DampedLBFGS(p, weight_decay=0.1), StrongWolfeSearch()),
        lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe"),
    ):
        module = two_heads()
        optimizer, risk = make(module.parameters()), EmpiricalRisk(module, cross_entropy, problems.points(), block=4)
        start, value = copy.deepcopy(module.two.state_dict()), risk.measure().loss
        for _ in range(3):
            take_step(optimizer, risk)
        assert problems.same_bits(module.two.state_dict(), start)
        assert risk.measure().loss < value


def test_the_fallback_of_a_search_leaves_them():
    module = two_heads()
    risk = EmpiricalRisk(module, cross_entropy, problems.points())
    # ascent is no descent direction, so the search falls back to the negative gradient of value and weight decay
    base = torch.optim.SGD(module.parameters(), lr=0.5, weight_decay=0.1, maximize=True)
    start = copy.deepcopy(module.two.state_dict())
    step = take_step(Searched(base, StrongWolfeSearch()), risk)
    assert step.search is not None
    assert step.search.fallback
    assert problems.same_bits(module.two.state_dict(), start)


def test_transforms_leave_them_unless_they_remember_other_gradients():
    module = two_heads()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=4)
    transform = chain(clip_norm(0.1), additive_noise(0.1, seed=1), lars(0.1, risk.space, weight_decay=0.1))
    start = copy.deepcopy(module.two.state_dict())
    take_step(torch.optim.SGD(module.parameters(), lr=0.1), risk, transform)
    assert problems.same_bits(module.two.state_dict(), start)


def test_an_aggregated_gradient_moves_an_expert_that_another_part_uses():
    module = problems.fill(Experts())
    x = torch.randn(4, 3, generator=problems.generator()).double()
    parts = [EmpiricalRisk(module, cross_entropy, (x + shift, torch.arange(4) % 3)) for shift in (-10, 10)]
    optimizer, transform, state = torch.optim.SGD(module.parameters(), lr=0.1), chain(aggregate([4, 4])), None
    moved = []
    for risk in parts:
        before = copy.deepcopy(module.state_dict())
        state = take_step(optimizer, risk, transform, state).transformed
        after = module.state_dict()
        moved.append([not torch.equal(after[f"experts.{k}.bias"], before[f"experts.{k}.bias"]) for k in range(3)])
    assert moved == [[True, False, False], [True, True, False]]


class Ridge(EmpiricalRisk):
    """The gradient of `L + (1 / 2) ||theta||**2`, as someone may add it: it depends on all parameters."""

    def by_block(self):
        inner = super().by_block()

        def contribution(theta, batch):
            part = inner(theta, batch)
            return replace(part, direction=part.direction + theta)

        return contribution


def test_a_term_that_is_no_loss_of_a_block_reaches_parameters_too():
    module = two_heads()
    assert Ridge(module, cross_entropy, problems.points(), block=4).evaluate().unused == ()
    module.two.bias.data.zero_()
    assert Ridge(module, cross_entropy, problems.points(), block=4).evaluate().unused == ("two.bias",)


def test_the_bits_of_many_parameters_are_read_back():
    space = parameter_space(nn.ParameterList(torch.zeros(2) for _ in range(120)))
    blocks = [tuple((k * step) % 3 == 0 for k in range(120)) for step in (1, 1, 5)]
    blocks.append(tuple(k % 2 == 0 for k in range(120)))
    table = torch.stack([reach.packed(block, torch.device("cpu")) for block in blocks], 1)
    assert table.shape == (reach.rows(120), 4) == (3, 4)
    gradient = torch.zeros(240)
    expected = [name for k, name in enumerate(space.names) if all(block[k] for block in blocks)]
    assert list(reach.unused(table, space, gradient)) == expected == [str(k) for k in range(0, 120, 6)]
    gradient[2 * 6 + 1] = 1.0  # another term of the objective reaches parameter 6
    assert list(reach.unused(table, space, gradient)) == [name for name in expected if name != "6"]


def test_a_preconditioner_leaves_out_parameters_without_state():
    module = two_heads()
    risk = EmpiricalRisk(module, cross_entropy, problems.points())
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    take_step(optimizer, risk)
    scaled = preconditioned(Hessian(risk), optimizer, risk.space)
    product = risk.space.split(scaled.product(torch.ones(1, len(risk.space)).double())[0])
    assert not product["two.weight"].any()
    assert product["one.weight"].any()
