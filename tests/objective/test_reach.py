"""However a forward or a loss reaches a parameter: values, gradients, penalties and Hessian products are right."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import oracles
import problems
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy
from noiseless.objective.compiled import Compiler


class Network(nn.Module):
    """3 -> 4 -> 3; smooth."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class InList(Network):
    """Keeps its weights in a list besides, and uses those."""

    def __init__(self):
        super().__init__()
        self.weights = [self.first.weight, self.second.weight]

    def forward(self, x):
        hidden = torch.tanh(x @ self.weights[0].T + self.first.bias)
        return hidden @ self.weights[1].T + self.second.bias


class InClosure(Network):
    """Calls a function that holds its layers' parameters."""

    def __init__(self):
        super().__init__()
        weight, bias = self.first.weight, self.first.bias
        self.hidden = lambda x: torch.tanh(x @ weight.T + bias)

    def forward(self, x):
        return self.second(self.hidden(x))


class Checkpointed(Network):
    """Computes its hidden layer again in the backward."""

    def forward(self, x):
        return self.second(checkpoint(lambda x: torch.tanh(self.first(x)), x, use_reentrant=False))


KINDS = {"list": InList, "closure": InClosure, "checkpointing": Checkpointed}


def both(kind):
    """The model and one that computes the same by its modules."""
    model, plain = problems.fill(KINDS[kind]()), problems.fill(Network())
    if kind == "list":
        model.weights = [model.first.weight, model.second.weight]
    if kind == "closure":
        weight, bias = model.first.weight, model.first.bias
        model.hidden = lambda x: torch.tanh(x @ weight.T + bias)
    return model, plain


def quietly(risk):
    """Evaluates once, so that the warning of `functional.check` is over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        risk.evaluate()
    return risk


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_those_of_the_same_network_with_its_parameters_in_modules(kind, chunk):
    model, plain = both(kind)
    settings = {"block": 3, "execution": Execution(chunk=chunk)}
    risk, expected = (EmpiricalRisk(module, cross_entropy, problems.points(), **settings) for module in (model, plain))
    V = problems.targets(2, 31, seed=9)
    quietly(risk)
    assert risk.measure().loss == pytest.approx(expected.measure().loss, rel=1e-14)
    torch.testing.assert_close(risk.evaluate().gradient, expected.evaluate().gradient, **oracles.ROUNDING)
    torch.testing.assert_close(risk.hvp(V), expected.hvp(V), **oracles.ROUNDING)
    for method in ("forward", "central", "exact"):
        one, other = (GradientPenalty(r, 0.5, lr=4.0, method=method) for r in (risk, expected))
        torch.testing.assert_close(one.evaluate().gradient, other.evaluate().gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(one.hvp(V), other.hvp(V), **oracles.ROUNDING)
    assert torch.equal(risk.space.theta, expected.space.theta)  # the probes' values are taken back


@pytest.mark.parametrize(
    "execution", [Execution(chunk=2), Execution(compiler=Compiler())], ids=["together", "compiled"]
)
@pytest.mark.parametrize("kind", ["list", "closure"])
def test_where_blocks_cannot_be_computed_together_a_warning_names_the_parameters(kind, execution):
    model, _ = both(kind)
    risk = EmpiricalRisk(model, cross_entropy, problems.points(), block=3, execution=execution)
    names = "first.weight, second.weight" if kind == "list" else "first.weight, first.bias"
    with pytest.warns(UserWarning, match=f"the gradient of {names} does not follow.*computed one at a time"):
        risk.evaluate()
    alone = EmpiricalRisk(model, cross_entropy, problems.points(), block=3)
    assert torch.equal(risk.evaluate().gradient, alone.evaluate().gradient)  # no second warning


def test_hooks_on_parameters_act():
    """A mask on a gradient keeps rows of a weight where they are."""
    model = problems.fill(Network())
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0]).double()[:, None]
    x, y = problems.points()
    plain = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), model.first.weight)[0]
    model.first.weight.register_hook(lambda gradient: gradient * mask)
    for chunk in (1, 2):
        risk = EmpiricalRisk(model, cross_entropy, (x, y), block=3, execution=Execution(chunk=chunk))
        gradient = quietly(risk).space.split(risk.evaluate().gradient)["first.weight"]
        torch.testing.assert_close(gradient, plain * mask, **oracles.ROUNDING)
        assert gradient[1].count_nonzero() == gradient[3].count_nonzero() == 0


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_loss_may_use_the_modules_parameters(chunk):
    model = problems.fill(Network())
    x, y = problems.points()

    def loss(output, target):
        return cross_entropy(output, target) + 0.1 * model.first.weight.square().sum()

    total = loss(model(x), y).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(total, list(model.parameters()))])
    risk = EmpiricalRisk(model, loss, (x, y), block=3, execution=Execution(chunk=chunk))
    assert quietly(risk).evaluate().loss == pytest.approx(total.item(), rel=1e-14)
    torch.testing.assert_close(risk.evaluate().gradient, expected, **oracles.ROUNDING)


def test_a_batch_norm_in_a_checkpoint_is_right_to_any_order():
    class Normed(nn.Module):
        def __init__(self, saves):
            super().__init__()
            self.body, self.head, self.saves = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(4, 3), saves

        def forward(self, x):
            x = checkpoint(self.body, x, use_reentrant=False) if self.saves else self.body(x)
            return self.head(torch.tanh(x))

    saving, plain = (problems.fill(Normed(saves)) for saves in (True, False))
    risks = [EmpiricalRisk(module, cross_entropy, problems.points(), block=4) for module in (saving, plain)]
    for method in ("forward", "exact"):
        one, other = (GradientPenalty(risk, 0.5, lr=4.0, method=method).evaluate() for risk in risks)
        assert torch.equal(one.gradient, other.gradient)
        assert torch.equal(one.statistics, other.statistics)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's own, of attention under vmap
@pytest.mark.parametrize("chunk", [1, 2])
def test_a_transformer_in_eval_measures_the_bits_of_its_evaluation(chunk):
    """Without gradients, torch computes its layers by other code."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.encoder(x).mean(1))

    x, y = torch.randn(11, 5, 8, generator=problems.generator(1)), problems.points()[1]
    risk = EmpiricalRisk(Encoder().eval(), cross_entropy, (x, y), block=3, execution=Execution(chunk=chunk))
    assert risk.measure().loss == risk.evaluate().loss


@dataclass
class Scaled:
    """A loss without a hash, as a dataclass that can be compared has none."""

    scale: float

    def __call__(self, output, target):
        return self.scale * cross_entropy(output, target)


@pytest.mark.parametrize("kind", ["dataclass", "method"])
def test_any_callable_is_a_loss(kind):
    loss = Scaled(2.0) if kind == "dataclass" else Scaled(2.0).__call__
    model, settings = problems.fill(Network()), {"block": 3, "execution": Execution(chunk=2)}
    risk = EmpiricalRisk(model, loss, problems.points(), **settings)
    plain = EmpiricalRisk(model, cross_entropy, problems.points(), **settings)
    assert torch.equal(risk.evaluate().gradient, 2 * plain.evaluate().gradient)
    assert risk.measure().loss == 2 * plain.measure().loss


def test_a_copy_of_a_module_has_its_own_answer():
    """What was found of one module is not used for another."""
    model, plain = both("closure")
    settings = {"block": 3, "execution": Execution(chunk=2)}
    quietly(EmpiricalRisk(model, cross_entropy, problems.points(), **settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EmpiricalRisk(copy.deepcopy(plain), cross_entropy, problems.points(), **settings).evaluate()
