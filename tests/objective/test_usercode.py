"""Errors of a user's module and loss are one sentence with their place; those of this package stay what they are."""

from __future__ import annotations

import inspect

import problems
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from noiseless import EmpiricalRisk, Execution, GradientPenalty, cross_entropy
from noiseless.errors import DerivativeError, ModuleError, message
from noiseless.objective import batchnorm


class Failing(nn.Module):
    """Raises an error in its forward, in a function that it calls, or in a backward of its own."""

    def __init__(self, error: BaseException, backward: bool = False):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.error, self.backward = error, backward

    def forward(self, x):
        return Backward.apply(self.fc(x), self.error) if self.backward else self._helper(self.fc(x))

    def _helper(self, x):
        raise self.error


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, error):
        ctx.error = error
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ctx.error


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient.clone()


def _risk(module, loss=cross_entropy, chunk=1, **options):
    return EmpiricalRisk(module.double(), loss, problems.points(), block=3, execution=Execution(chunk=chunk), **options)


def _line(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(k for k, line in enumerate(lines) if text in line)


QUESTIONS = {
    "evaluate": lambda risk: risk.evaluate(),
    "measure": lambda risk: risk.measure(),
    "hvp": lambda risk: risk.hvp(torch.ones(1, len(risk.space), dtype=torch.float64)),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", [RuntimeError, TypeError, KeyError, ValueError, AssertionError, NotImplementedError])
def test_an_error_of_the_module_has_its_place_and_its_cause(question, kind):
    error = kind("a wrong thing")
    with pytest.raises(ModuleError) as told:
        QUESTIONS[question](_risk(Failing(error)))
    line = _line(Failing._helper, "raise")
    sentence = f"the module's forward raises {kind.__name__}: {error} ({__file__}, line {line}, in _helper)"
    assert str(told.value) == sentence
    assert told.value.__cause__ is error
    assert message(told.value) == f"{sentence}; NOISELESS_TRACEBACK=1 prints the whole traceback"


@pytest.mark.parametrize("question", ["evaluate", "hvp"])
def test_an_error_in_a_backward_of_the_users_has_its_place(question):
    with pytest.raises(ModuleError, match=r"^the backward raises RuntimeError: wrong \(.*line \d+, in backward\)$"):
        QUESTIONS[question](_risk(Failing(RuntimeError("wrong"), backward=True)))


@pytest.mark.parametrize("chunk", [1, 2])
def test_an_error_within_torchs_layers_names_the_layer(chunk):
    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(5, 3)))
    with pytest.raises(ModuleError) as told:
        _risk(module, chunk=chunk).evaluate()
    assert str(told.value) == (
        "the module's forward raises RuntimeError: mat1 and mat2 shapes cannot be multiplied (3x4 and 5x3) (in layer"
        " 1.1, a Linear)"
    )
    with pytest.raises(ModuleError, match=r"\(3x3 and 4x3\) \(in a Linear\)$"):
        _risk(nn.Linear(4, 3)).evaluate()
    with pytest.raises(ModuleError, match=r"expected 2D or 3D input \(got 1D input\) \(in layer 1, a BatchNorm1d\)$"):
        _risk(nn.Sequential(nn.Flatten(0), nn.BatchNorm1d(3))).evaluate()


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_error_of_the_loss_is_told_as_one(question):
    def loss(output, target):
        return output @ target

    target = r"^the loss raises RuntimeError: .* \(.*test_usercode.py, line \d+, in loss\)$"
    with pytest.raises(ModuleError, match=target):
        QUESTIONS[question](_risk(nn.Linear(3, 3), loss))
    torchs = nn.CrossEntropyLoss(weight=torch.ones(2, dtype=torch.float64), reduction="none")
    with pytest.raises(ModuleError, match=r"^the loss raises RuntimeError: weight tensor .*\(in a CrossEntropyLoss\)$"):
        QUESTIONS[question](_risk(nn.Linear(3, 3), torchs))
    real = EmpiricalRisk(nn.Linear(3, 3).double(), cross_entropy, (problems.points()[0], problems.targets()[:, 0]))
    with pytest.raises(ModuleError, match=r"^the loss raises RuntimeError: .*\(in cross_entropy\)$"):
        QUESTIONS[question](real)


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't"
    " allocate memory: you tried to allocate 8 bytes"), KeyboardInterrupt()], ids=repr,
)  # fmt: skip
def test_exhausted_memory_and_an_interrupt_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised:
        _risk(Failing(error)).evaluate()
    assert raised.value is error


def test_an_error_of_this_package_is_not_hidden(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a bug in batch norm")

    monkeypatch.setattr(batchnorm.NormBlocks, "apply", broken)
    # a bug is recognised by its file
    broken.__code__ = broken.__code__.replace(co_filename=batchnorm.__file__)
    with pytest.raises(RuntimeError, match=r"^a bug in batch norm$"):
        _risk(problems.with_batch_norm()).evaluate()


def test_a_sentence_of_this_package_stays_as_it_is():
    with pytest.raises(ValueError, match=r"^batch norm '1' has 5 channels, but gets 3$"):
        _risk(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(5))).evaluate()
    with pytest.raises(ValueError, match=r"^the loss must give one value an example, .*the mean at its end$"):
        _risk(nn.Linear(3, 3), lambda output, target: F.cross_entropy(output, target)).evaluate()


def _ctc(output, target):
    log_p = torch.stack([output, output.sin(), output.cos()]).log_softmax(-1)
    ones = torch.ones(len(output), dtype=torch.long)
    return F.ctc_loss(log_p, target[:, None].clamp(min=1), 3 * ones, ones, reduction="none")


def _exact(risk):
    GradientPenalty(risk, 1.0, lr=1.0, method="exact").evaluate()


def _products_of_the_penalised(risk):
    GradientPenalty(risk, 1.0, lr=1.0).hvp(torch.ones(1, len(risk.space), dtype=torch.float64))


@pytest.mark.parametrize(
    ("ask", "names"),
    [
        (QUESTIONS["hvp"], ("Hessian products need the second derivative of ctc_loss", "gradients only")),
        (_exact, ("the exact penalty needs the second derivative of ctc_loss", "--penalty-method forward")),
        (_products_of_the_penalised, ("penalised value need the third derivative of ctc_loss", "--of loss")),
    ],
)
def test_a_derivative_that_torch_lacks_is_one_sentence_with_what_works_instead(ask, names):
    risk = _risk(nn.Linear(3, 3), _ctc)
    with pytest.raises(DerivativeError) as told:
        ask(risk)
    assert all(name in str(told.value) for name in names), told.value
    assert "derivative for aten::_ctc_loss_backward is not implemented" in str(told.value.__cause__)
    assert message(told.value) == str(told.value)
    assert GradientPenalty(risk, 1.0, lr=1.0).evaluate().penalty > 0  # the forward method


def test_an_operation_without_a_name_is_told_with_torchs_reason():
    module = nn.Sequential(nn.Linear(3, 3), nn.Unflatten(1, (3, 1, 1)), nn.CrossMapLRN2d(2), nn.Flatten())
    risk = _risk(module, nn.CrossEntropyLoss(reduction="none"))
    risk.evaluate()
    pattern = r"second derivative of an operation of the module or the loss, .*functions with out="
    with pytest.raises(DerivativeError, match=pattern):
        QUESTIONS["hvp"](risk)


@pytest.mark.parametrize("ask", [QUESTIONS["hvp"], _exact, _products_of_the_penalised])
def test_a_function_that_is_differentiable_once_is_refused_by_name(ask):
    # torch itself takes its derivative for 0
    risk = _risk(nn.Linear(3, 3), lambda output, target: F.cross_entropy(Once.apply(output), target, reduction="none"))
    risk.evaluate()
    with pytest.raises(DerivativeError, match=r"derivative of Once, which is marked with once_differentiable: "):
        ask(risk)
