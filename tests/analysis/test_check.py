"""The check before Hessian products: it finds wrong second derivatives, passes kinks, and changes nothing else."""

from __future__ import annotations

import problems
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, models
from noiseless.analysis import Hessian, check, top_eigenvalues
from noiseless.errors import DerivativeError, ModuleError
from noiseless.objective import products
from noiseless.objective.blockclip import BlockClip
from noiseless.objective.elementary import AnyOrder
from noiseless.objective.workers import Alone


class Constant(torch.autograd.Function):
    """The square of x, whose backward takes x for a constant: the products lack a term, and are symmetric."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.x * gradient


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _network(*layers: nn.Module, dtype=torch.float64) -> nn.Module:
    return problems.fill(nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 3))).to(dtype)


def _risk(module, loss=cross_entropy, data=None, **options):
    x, y = data or problems.points()
    return EmpiricalRisk(module, loss, (x.to(next(module.parameters()).dtype), y), **({"block": 3} | options))


def _penalised(risk):
    return GradientPenalty(risk, 0.5, lr=0.8)


WRAPPERS = {"risk": lambda risk: risk, "penalty": _penalised, "clip": lambda risk: BlockClip(_penalised(risk), 1.0)}


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_products_that_are_not_the_gradients_derivative_are_refused(activation, dtype, wrap):
    module = _network(Layer(Constant.apply), nn.Linear(4, 4), activation(), dtype=dtype)
    hessian = Hessian(WRAPPERS[wrap](_risk(module)))
    for _ in range(2):  # a failure is not remembered as a success
        with pytest.raises(DerivativeError) as told:
            top_eigenvalues(hessian)
        assert "differs by" in str(told.value)
        assert "most of all in 0." in str(told.value)  # the layer in front of the function
    unchecked = Hessian(hessian.objective, check=False)
    assert unchecked.product(torch.ones(1, len(unchecked.space), dtype=dtype)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_products_that_are_not_symmetric_are_refused_with_both_numbers(dtype, monkeypatch):
    monkeypatch.setattr(products, "AnyOrder", lambda: torch.nn.attention.sdpa_kernel([]))  # torch's own weight norm
    module = _network(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Tanh(), dtype=dtype)
    risk = _risk(module, block=11)
    with pytest.raises(DerivativeError, match=r"not symmetric: on one block u\.Hv = (\S+), but v\.Hu = (?!\1)"):
        Hessian(risk).product(torch.ones(1, len(risk.space), dtype=dtype))
    monkeypatch.setattr(products, "AnyOrder", AnyOrder)
    assert Hessian(risk).product(torch.ones(1, len(risk.space), dtype=dtype)).isfinite().all()


def _at_kinks() -> nn.Module:
    """ReLUs at exactly 0, where the gradient jumps."""
    module = _network(nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    with torch.no_grad():
        for p in module[2].parameters():
            p.zero_()
    return module


QUIET = {
    "tanh": lambda: _network(nn.Tanh()),
    "ReLU at 0": _at_kinks,
    "batch norm and dropout": lambda: _network(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU()),
    "linear": lambda: problems.fill(nn.Linear(3, 3)),
    "bfloat16": lambda: _network(nn.ReLU(), dtype=torch.bfloat16),
    "float32 by hand": lambda: _network(Layer(lambda x: x.float().tanh()), dtype=torch.float32),
}


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("name", QUIET)
def test_right_products_raise_no_alarm_and_are_checked_once(name, wrap, monkeypatch):
    calls = []
    original = check._check
    monkeypatch.setattr(check, "_check", lambda *arguments: calls.append(arguments) or original(*arguments))
    module = QUIET[name]()
    objective = WRAPPERS[wrap](_risk(module))
    V = torch.ones(1, len(objective.space), dtype=objective.space.theta.dtype)
    before = problems.state(module)
    for _ in range(2):
        assert torch.equal(Hessian(objective).product(V), objective.hvp(V))
    assert len(calls) == 1
    Hessian(objective, "running").product(V)  # another function
    assert len(calls) == 2
    assert problems.same_bits(before, problems.state(module))
    assert Hessian(objective).passes(1) == objective.hvp_passes(1)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("form", [models.Form(), models.Form(norm="group"), models.Form(zero_init=True)], ids=str)
def test_built_in_models_raise_no_alarm(form, autocast):
    module = models.build("resnet8", 1, 3, form, size=(8, 8))
    x = torch.randn(8, 1, 8, 8, generator=problems.generator())
    risk = _risk(module, data=(x, torch.arange(8) % 3), block=8, norm_block=4, autocast=autocast)
    check.check_products(risk)
    check.check_products(_penalised(risk))


def test_a_loss_that_needs_a_whole_block_is_checked_on_one():
    def pairs(output, target):
        if len(target) % 6:
            raise ValueError(f"{len(target)} is no multiple of 6")
        return F.cross_entropy(output, target, reduction="none")

    risk = _risk(_network(nn.Tanh()), pairs, problems.points(12), block=6)
    assert Hessian(risk).product(torch.ones(1, len(risk.space), dtype=torch.float64)).isfinite().all()
    with pytest.raises(ModuleError, match="7 is no multiple of 6"):
        check.check_products(_risk(_network(nn.Tanh()), pairs, problems.points(7), block=7))


def test_each_worker_checks_by_itself():
    class Refusing(Alone):
        def share(self, partial):
            raise AssertionError("a sweep of all workers")

    risk = _risk(_network(nn.Tanh()), execution=Execution(workers=Refusing()))
    check.check_products(risk)
    with pytest.raises(AssertionError, match="a sweep of all workers"):
        Hessian(risk).product(torch.ones(1, len(risk.space), dtype=torch.float64))
