"""Between the first and the last chunk of a sweep, no number of the device is read: a GPU is not waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from waiting import Counting, Stopped

from noiseless import models
from noiseless.data.images import Images
from noiseless.objective import EmpiricalRisk, Execution, GradientPenalty, cross_entropy, resident
from noiseless.objective.gradients import BlockLoss

SIDE, CLASSES, COUNT = 8, 3, 40


class Norms(nn.Sequential):
    """A small network with batch norm and dropout."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(),
            nn.Linear(4 * SIDE**2, CLASSES),
        )  # fmt: skip


def images(device, **changes):
    pixels = torch.arange(COUNT * 3 * SIDE**2).remainder(251).to(torch.uint8).reshape(COUNT, 3, SIDE, SIDE)
    labels = torch.arange(COUNT) % CLASSES
    return Images(pixels.to(device), labels.to(device), (100.0,) * 3, (60.0,) * 3, **changes)


def risk(device, chunk=1, make=Norms, ends=False, data=None, **arguments):
    """A risk over six blocks, the last one short; on the meta device, its sweeps end with `Stopped`."""
    torch.manual_seed(0)
    execution = Execution(Counting(device, ends), chunk, check=False)
    data = images(device) if data is None else data
    return EmpiricalRisk(
        make().to(device), cross_entropy, data, block=7, norm_block=7, execution=execution, **arguments
    )


def penalty(risk, method="forward"):
    return GradientPenalty(risk, 0.5, lr=0.1, method=method)


OBJECTIVES = {
    "risk": lambda risk: risk,
    "penalty": penalty,
    "central": lambda risk: penalty(risk, "central"),
    "exact": lambda risk: penalty(risk, "exact"),
}


@pytest.fixture(autouse=True)
def _autocast_without_values(monkeypatch):
    """torch has no autocast, not even a disabled one, for the meta device; a CPU's leaves its tensors as they are."""
    there = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda kind, *a, **k: there("cpu" if kind == "meta" else kind, *a, **k))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("chunk", [1, 2])
def test_on_a_cpu_that_stands_for_a_device(name, chunk, monkeypatch):
    monkeypatch.setattr(resident, "stays", lambda device: True)
    risk_ = risk("cpu", chunk)
    evaluation = OBJECTIVES[name](risk_).evaluate()
    workers = risk_.execution.workers
    assert workers.waits.seen == []
    assert workers.chunks >= (5 if chunk == 1 else 3)
    monkeypatch.undo()
    as_ever = OBJECTIVES[name](risk("cpu", chunk)).evaluate()
    assert torch.equal(evaluation.gradient, as_ever.gradient)
    assert torch.equal(evaluation.statistics, as_ever.statistics)
    assert evaluation.value == as_ever.value


@pytest.mark.parametrize("name", ["risk", "penalty", "central"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_on_a_device_without_values(name, chunk, monkeypatch):
    monkeypatch.setattr(BlockLoss, "check", lambda *arguments: None)  # before the first chunk: compares two gradients
    risk_ = risk("meta", chunk, ends=True)
    with pytest.raises(Stopped):
        OBJECTIVES[name](risk_).evaluate()
    workers = risk_.execution.workers
    assert workers.waits.seen == []
    assert workers.chunks >= (5 if chunk == 1 else 3)


def test_the_exact_sum_of_a_cpu_reads_its_terms():
    """So the counting counts."""
    risk_ = risk("cpu")
    risk_.evaluate()
    assert risk_.execution.workers.waits.seen.count("aten._local_scalar_dense.default") >= 10
    assert risk_.execution.workers.waits.seen.count("aten.item.default") == 0


@pytest.mark.parametrize(
    "changes",
    [{}, {"augment": "crop-flip"}, {"augment": "crop-flip", "copies": 2}, {"chosen": torch.arange(0, 36)},
     {"dtype": torch.float64}],
    ids=str,
)  # fmt: skip
def test_images_are_taken_without_waiting(changes):
    data = images("meta", **changes)
    risk_ = risk("meta", ends=True, data=data, make=lambda: Norms().to(data.dtype))
    with pytest.raises(Stopped):
        risk_.evaluate()
    assert risk_.execution.workers.waits.seen == []


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_tensors_are_sent_without_waiting(where):
    inputs, labels = torch.zeros(COUNT, 3, SIDE, SIDE), torch.zeros(COUNT, dtype=torch.int64)
    order = torch.arange(COUNT).flip(0)
    risk_ = risk("meta", ends=True, data=(inputs, labels))
    if where == "meta":  # whose tensors cannot be looked at for NaN, so they are put there afterwards
        risk_.selection.examples.tensors = inputs.to("meta"), labels.to("meta")
    with pytest.raises(Stopped):
        risk_.at(replace(risk_.selection, order=order)).evaluate()
    assert risk_.execution.workers.waits.seen == []


@pytest.mark.parametrize("name", ["resnet18", "speednet128"])
def test_models_of_the_paper(name):
    def make():
        return models.build(name, 3, CLASSES)

    data = images("meta")
    data = replace(data, images=torch.empty(COUNT, 3, 32, 32, dtype=torch.uint8, device="meta"))
    risk_ = risk("meta", ends=True, data=data, make=make)
    with pytest.raises(Stopped):
        penalty(risk_).evaluate()
    assert risk_.execution.workers.waits.seen == []


def test_bfloat16(monkeypatch):
    monkeypatch.setattr(resident, "stays", lambda device: True)
    risk_ = risk("cpu", autocast=torch.bfloat16)
    penalty(risk_).evaluate()
    assert risk_.execution.workers.waits.seen == []


def test_measurements_and_products():
    for ask in (lambda risk: risk.measure(), lambda risk: risk.hvp(risk.space.theta.detach()[None].clone())):
        risk_ = risk("meta", ends=True)
        with pytest.raises(Stopped):
            ask(risk_)
        assert risk_.execution.workers.waits.seen == []
