"""Inputs and targets in dicts, tuples and lists, by position or name: the bits of positional tensors."""

from __future__ import annotations

import re

import oracles
import problems
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy
from noiseless.objective.compiled import Compiler

BLOCK = 4


class Bilinear(nn.Module):
    """Logits `A tanh(B a) * (C b)` of two inputs, which `read` finds in the arguments of the forward."""

    def __init__(self, read, dropout=0.0):
        super().__init__()
        self.A, self.B, self.C = nn.Linear(4, 3), nn.Linear(3, 4), nn.Linear(3, 3)
        self.read, self.dropout = read, nn.Dropout(dropout) if dropout else nn.Identity()
        problems.fill(self)

    def forward(self, *arguments, **named):
        a, b = self.read(*arguments, **named)
        return self.dropout(self.A(self.B(a).tanh())) * self.C(b)


XA, Y = problems.points()
XB = problems.targets()
FORMS = {
    "dict": (lambda x: (x["a"], x["b"]), ({"a": XA, "b": XB}, Y)),
    "tuple": (lambda x: x, ((XA, XB), Y)),
    "dict and tensor": (lambda x, b: (x["deep"][0], b), ({"deep": [XA]}, XB, Y)),
    "names": (lambda a, b: (a, b), {"b": XB, "labels": Y, "a": XA}),
    "dict under a name": (lambda *, x: (x["a"], x["b"]), {"x": {"a": XA, "b": XB}, "target": Y}),
}


def _plain(dropout=0.0, chunk=1):
    return _risk(lambda a, b: (a, b), (XA, XB, Y), dropout, chunk)


def _risk(read, data, dropout=0.0, chunk=1, compiler=None):
    execution = Execution(chunk=chunk, compiler=compiler)
    return EmpiricalRisk(Bilinear(read, dropout), cross_entropy, data, block=BLOCK, execution=execution)


def test_positional_tensors_agree_with_autograd():
    risk, module = _plain(), Bilinear(lambda a, b: (a, b))
    F.cross_entropy(module(XA, XB), Y).backward()
    torch.testing.assert_close(
        risk.evaluate().gradient, oracles.flat([p.grad for p in module.parameters()]), **oracles.ROUNDING
    )


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize(("read", "data"), FORMS.values(), ids=FORMS)
def test_every_form_has_the_bits_of_positional_tensors(read, data, chunk, dropout):
    risk, plain = _risk(read, data, dropout, chunk), _plain(dropout, chunk)
    evaluation, expected = risk.evaluate(), plain.evaluate()
    assert torch.equal(evaluation.gradient, expected.gradient)
    assert (evaluation.loss, evaluation.hits) == (expected.loss, expected.hits)
    assert risk.measure() == plain.measure()
    V = torch.ones(1, len(risk.space), dtype=torch.float64)
    assert torch.equal(risk.hvp(V), plain.hvp(V))
    penalised, expected = (GradientPenalty(r, 0.5, lr=0.1).evaluate().gradient for r in (risk, plain))
    assert torch.equal(penalised, expected)
    assert torch.equal(
        risk.block_gradient(2, risk.space.theta.detach()), plain.block_gradient(2, plain.space.theta.detach())
    )


class Uncompiled(Compiler):
    """Calls the functions that it is given, with their tensors; it keeps the keys."""

    def __init__(self):
        super().__init__(pytest.fail)
        self.keys = set()

    def call(self, key, function, *arguments, **named):
        self.keys.add(key)
        assert all(isinstance(argument, torch.Tensor) for argument in arguments)
        with torch.no_grad():
            return function(*arguments)


@pytest.mark.parametrize("chunk", [1, 2])
def test_functions_for_the_compiler_take_tensors(chunk):
    compiler = Uncompiled()
    for number, (read, data) in enumerate(FORMS.values()):
        plain = _risk(read, data, 0, chunk).evaluate()
        evaluation = _risk(read, data, 0, chunk, compiler).evaluate()
        torch.testing.assert_close(evaluation.gradient, plain.gradient, **oracles.ROUNDING)
        assert evaluation.hits == plain.hits
        assert len(compiler.keys) == number + 1


@pytest.mark.parametrize("chunk", [1, 2])
def test_images_in_a_dict_have_the_bits_of_images(chunk):
    class InDict(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = problems.convolution()

        def forward(self, x):
            return self.module(x["pixels"])

    x, y = problems.images()
    execution = Execution(chunk=chunk)
    risks = [
        EmpiricalRisk(module, cross_entropy, data, block=BLOCK, execution=execution)
        for module, data in ((InDict(), ({"pixels": x}, y)), (problems.convolution(), (x, y)))
    ]
    evaluation, expected = (risk.evaluate() for risk in risks)
    assert torch.equal(evaluation.gradient, expected.gradient)
    assert torch.equal(evaluation.statistics, expected.statistics)


def _two_tasks(output, target):
    classes, (values, _) = target["class"], target["rest"]
    return F.cross_entropy(output, classes, reduction="none") + (output - values).square().mean(1)


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_target_may_be_a_tree(chunk):
    x, y = problems.points()
    values, module = problems.targets(), problems.perceptron()
    target = {"class": y, "rest": (values, torch.zeros(len(x), 7))}
    risk = EmpiricalRisk(module, _two_tasks, (x, target), block=BLOCK, execution=Execution(chunk=chunk))
    evaluation, measured = risk.evaluate(), risk.measure()
    loss = _two_tasks(module(x), target).mean()
    expected = oracles.flat(torch.autograd.grad(loss, list(module.parameters())))
    torch.testing.assert_close(evaluation.gradient, expected, **oracles.ROUNDING)
    assert evaluation.loss == measured.loss == pytest.approx(loss.item(), rel=1e-12)
    assert (evaluation.hits, measured.hits) == (None, None)


def test_a_loss_that_gives_too_few_values_for_a_tree_is_refused():
    x, y = problems.points()
    risk = EmpiricalRisk(
        problems.perceptron(), lambda output, target: cross_entropy(output, target["y"])[:1], (x, {"y": y}), block=BLOCK
    )
    with pytest.raises(ValueError, match=re.escape("one value an example, but gave shape [1] for 4 examples")):
        risk.evaluate()


NAN = XB.clone()
NAN[5, 1] = float("nan")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": XA, "b": XB}, "one target, called labels or label or target or targets, but holds a, b"),
        ({"a": XA, "labels": Y, "label": Y}, "but holds a, labels, label"),
        ({"labels": Y}, "must hold the module's inputs and one target"),
        ({}, "but holds nothing"),
        (({"a": XA, "b": XB[:4]}, Y), "must have one length, but they have [11, 4, 11]"),
        (({"a": XA, "b": [XB, NAN]}, Y), "tensor 0['b'][1] of the data holds NaN or infinity, first in example 5"),
        ({"b": NAN, "labels": Y}, "tensor 'b' of the data holds NaN or infinity, first in example 5"),
        (({"a": XA, "b": XB.numpy()}, Y), "0['b'] of the data is of type ndarray, but inputs and target must be tens"),
        ({"a": XA, "b": None, "labels": Y}, "'b' of the data is of type NoneType"),
        (((), {}), "the data set is empty"),
    ],
)
def test_bad_trees_are_refused(data, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        EmpiricalRisk(problems.perceptron(), cross_entropy, data)
