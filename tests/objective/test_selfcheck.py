"""Before the first sweep, loss and gradient of a few examples are compared with the module as it stands."""

from __future__ import annotations

import random
from dataclasses import replace

import oracles
import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, Execution, cross_entropy
from noiseless.models import build
from noiseless.objective import selfcheck

NO_FUNCTION = r"two forwards of the same examples give losses of .* and .*no function of the parameters"


class Scaled(nn.Module):
    """A perceptron whose output is multiplied by what a function returns."""

    def __init__(self, factor):
        super().__init__()
        self.scores, self.factor, self.calls = problems.perceptron(), factor, 0

    def forward(self, x):
        self.calls += 1
        return self.scores(x) * self.factor(self)


NO_FUNCTIONS = {"Python's random numbers": lambda module: random.random(), "a counter": lambda module: module.calls}


@pytest.mark.parametrize("name", NO_FUNCTIONS)
def test_a_module_that_is_no_function_of_its_parameters_is_refused(name):
    random.seed(1)  # successive numbers are not within the tolerance of each other
    risk = EmpiricalRisk(Scaled(NO_FUNCTIONS[name]), cross_entropy, problems.points(), block=4)
    for ask in (risk.evaluate, risk.measure, risk.evaluate):  # also the second time
        with pytest.raises(ValueError, match=NO_FUNCTION):
            ask()
    assert replace(risk, execution=Execution(check=False)).evaluate().loss > 0


class Strided(nn.Module):
    """Reads its input's memory: a forward that depends on the format of images."""

    def __init__(self):
        super().__init__()
        self.scores = problems.fill(nn.Linear(32, 3))

    def forward(self, x):
        return self.scores(x.as_strided((len(x), 32), (32, 1), x.storage_offset()))


def test_a_forward_that_reads_strides_gets_its_images_as_they_are():
    images = torch.randn(6, 2, 4, 4, generator=problems.generator(), dtype=torch.float64)
    module, labels = Strided(), torch.arange(6) % 3
    evaluation = EmpiricalRisk(module, cross_entropy, (images, labels), block=3).evaluate()
    value, gradient = oracles.one_batch(module, cross_entropy, (images, labels))
    assert evaluation.loss == pytest.approx(value, rel=1e-13)
    torch.testing.assert_close(evaluation.gradient, gradient, **oracles.ROUNDING)


def test_a_difference_names_values_and_parameters(monkeypatch):
    module = problems.with_batch_norm()
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=4)
    original = risk.norm._normalise
    monkeypatch.setattr(risk.norm, "_normalise", lambda *a: tuple(1.5 * part for part in original(*a)))
    with pytest.raises(ValueError, match=r"is [\d.]+ in a sweep, but [\d.]+ by the module .*differ in 0.weight, "):
        risk.evaluate()


def test_parameters_and_buffers_are_unchanged_and_it_runs_once():
    module = problems.with_batch_norm()
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    risk = EmpiricalRisk(module, cross_entropy, problems.points(), block=problems.COUNT)
    before = problems.state(module)
    risk.measure()
    assert len(calls) == 3  # in a sweep, as it stands, and the sweep itself
    assert problems.same_bits(before, problems.state(module))
    risk.measure()
    assert len(calls) == 4
    module.eval()
    risk.measure()
    assert len(calls) == 7  # another mode is another function


def test_it_changes_no_bit():
    module, data = problems.with_dropout(), problems.points()
    checked, unchecked = (
        EmpiricalRisk(module, cross_entropy, data, block=4, execution=Execution(check=check)).evaluate()
        for check in (True, False)
    )
    assert checked.loss == unchecked.loss
    assert torch.equal(checked.gradient, unchecked.gradient)


@pytest.mark.parametrize("name", ["resnet8", "speednet128"])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e-3])
def test_rounding_is_no_difference(name, scale):
    """In float32, also where scores are so large that the gradient is rounding alone."""
    torch.manual_seed(0)
    module = build(name, 3, 10)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(scale)
    images = torch.randn(8, 3, 16, 16)
    labels = module.eval()(images).argmax(1).detach()
    risk = EmpiricalRisk(module.train(), cross_entropy, (images, labels), block=8)
    assert selfcheck._compared(risk.block_loss, risk._batch(risk.blocks.head(8))) == (None, True)


class Writes(nn.Module):
    """Normalises its input in place, as a forward that was written for one use of each batch may."""

    def __init__(self):
        super().__init__()
        self.scores = problems.perceptron()

    def forward(self, x):
        return self.scores(x.sub_(0.5).mul_(2.0))


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("block", [4, problems.COUNT])
def test_a_forward_that_writes_into_its_input_does_not_change_the_data(block, check):
    x, y = problems.points()
    before = x.clone()
    risk = EmpiricalRisk(Writes(), cross_entropy, (x, y), block=block, execution=Execution(check=check))
    first, second = risk.evaluate(), risk.evaluate()
    assert torch.equal(x, before)
    assert first.loss == second.loss == risk.measure().loss
    value, gradient = oracles.one_batch(risk.module, cross_entropy, (x.clone(), y))
    assert first.loss == pytest.approx(value, rel=1e-13)
    torch.testing.assert_close(first.gradient, gradient, **oracles.ROUNDING)
