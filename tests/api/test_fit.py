"""`fit` trains as a loop of one's own does, to the bit; with a directory it is a run that goes on after a kill."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import copies
import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from problems import COUNT, perceptron, points, same_bits, state, targets, with_batch_norm, with_dropout
from small_runs import call
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

import noiseless
from noiseless import EmpiricalRisk, GradientPenalty, Selection, chain, clip_norm, take_step
from noiseless.optim import DampedLBFGS, Muon, make_optimizer, schedules

LOSS = nn.CrossEntropyLoss()


def plain(module, steps, rate, strength=0.0, clip=None, block=4, **settings):
    """A loop of one's own with SGD; returns the final state."""
    risk = EmpiricalRisk(module, LOSS, Selection.of(points()), block=block)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0, **settings)
    transform, transformed = chain(clip_norm(clip)) if clip else None, None
    for number in range(steps):
        optimizer.param_groups[0]["lr"] = lr = rate(number)
        objective = GradientPenalty(risk, strength, lr=lr) if strength else risk
        transformed = take_step(optimizer, objective, transform, transformed, number).transformed
    return state(module)


@pytest.mark.parametrize("make", [perceptron, with_batch_norm, with_dropout])
def test_fit_has_the_bits_of_ones_own_loop_and_writes_nothing(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module, rows = make(), []
    result = noiseless.fit(
        module, LOSS, points(), optimizer="SGD", lr=0.2, momentum=0.9, steps=5, block=4, callbacks=[rows.append]
    )
    assert same_bits(state(module), plain(make(), 5, lambda step: 0.2, momentum=0.9))
    assert list(tmp_path.iterdir()) == []
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert result.history == rows
    assert (result.run_dir, result.validation) == (None, None)
    assert result.train.loss == EmpiricalRisk(module.eval(), LOSS, points(), block=4).measure().loss
    assert "test_loss" not in rows[-1]


def test_a_recipe_gives_penalty_clip_schedule_and_optimizer():
    module = with_batch_norm()
    noiseless.fit(module, LOSS, points(), recipe="fb-regularized", steps=30, block=4, weight_decay=0.01)
    # 3000 steps, 400 of warm-up and a horizon of 4000, divided by 100
    rate = schedules.cosine(0.8, 4, 40)
    settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    assert same_bits(state(module), plain(with_batch_norm(), 30, rate, 0.5, 0.25, **settings))


def test_stochastic_training_is_a_recipe_too():
    module = perceptron()
    result = noiseless.fit(module, LOSS, points(), recipe="sgd", steps=3, block=4, warmup=0)
    assert result.column("passes").tolist() == [1, 2, 3]
    assert not same_bits(state(module), plain(perceptron(), 3, lambda step: 0.1))


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.AdamW,
        functools.partial(torch.optim.AdamW, lr=1e-3),
        lambda parameters: torch.optim.AdamW(parameters),
        "instance",
        "adamw",
    ],
)
def test_an_optimizer_may_come_in_any_form(optimizer):
    expected, module = perceptron(), perceptron()
    loop = torch.optim.AdamW(expected.parameters())
    risk = EmpiricalRisk(expected, LOSS, points())
    for number in range(4):
        take_step(loop, risk, number=number)
    optimizer = torch.optim.AdamW(module.parameters()) if optimizer == "instance" else optimizer
    noiseless.fit(module, LOSS, points(), optimizer=optimizer, steps=4)
    assert same_bits(state(module), state(expected))


@pytest.mark.parametrize(
    "factory",
    [
        lambda optimizer: CosineAnnealingLR(optimizer, T_max=6),
        functools.partial(StepLR, step_size=2, gamma=0.5),
        lambda optimizer: OneCycleLR(optimizer, max_lr=0.3, total_steps=6, cycle_momentum=False),
    ],
)
def test_a_scheduler_of_torch_gives_its_rates(factory):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, rates = factory(optimizer), []
    for step in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < 5:
            scheduler.step()
    result = noiseless.fit(perceptron(), LOSS, points(), optimizer="SGD", lr=0.1, scheduler=factory, steps=6)
    assert result.column("lr").tolist() == rates
    assert len(set(rates)) > 2


def test_a_schedule_is_a_function_of_the_step():
    rate = schedules.cosine(0.3, 1, 5)
    result = noiseless.fit(perceptron(), LOSS, points(), optimizer="SGD", scheduler=rate, steps=4)
    assert result.column("lr").tolist() == [rate(step) for step in range(4)]


def test_data_sets_and_loaders_are_the_data():
    expected = perceptron()
    noiseless.fit(expected, LOSS, points(), optimizer="SGD", lr=0.1, steps=2)
    for data in (TensorDataset(*points()), DataLoader(TensorDataset(*points()), batch_size=3, shuffle=True)):
        module = perceptron()
        noiseless.fit(module, LOSS, data, optimizer="SGD", lr=0.1, steps=2)
        assert same_bits(state(module), state(expected))


def test_the_modules_mode_decides():
    module = with_batch_norm()
    module[1].eval()  # a frozen norm, as in fine-tuning
    before = state(module)
    result = noiseless.fit(module, LOSS, points(), optimizer="SGD", lr=0.1, steps=2, validation=points(seed=5))
    after = state(module)
    assert torch.equal(after["1.running_mean"], before["1.running_mean"])
    assert not torch.equal(after["4.running_mean"], before["4.running_mean"])
    assert [part.training for part in module.modules()] == [True, True, False, True, True, True, True, True]
    assert result.validation.loss == EmpiricalRisk(module.eval(), LOSS, points(seed=5)).measure().loss


def test_a_regression_is_validated_with_metrics():
    x, _ = points()
    result = noiseless.fit(
        perceptron(), nn.MSELoss(), (x, targets()), optimizer="SGD", lr=0.01, steps=4, evaluate_every=2,
        validation=(x[:5], targets()[:5]), metrics={"mae": nn.L1Loss()},
    )  # fmt: skip
    assert [("test_mae" in row, "test_accuracy" in row) for row in result.history] == [
        (False, False),
        (True, False),
    ] * 2
    assert result.history[-1]["test_mae"] == result.validation.metrics["mae"]
    assert result.history[-1]["test_loss"] == result.validation.loss
    assert result.train.count == COUNT
    assert result.validation.count == 5


def test_a_result_is_a_line_values_and_a_plot():
    mpl.use("Agg")
    result = noiseless.fit(perceptron(), LOSS, points(), optimizer="SGD", lr=0.1, steps=3, validation=points())
    assert repr(result).startswith(f"Fit(3 steps, train_loss={result.train.loss:.4g}, train_accuracy=")
    assert "\n" not in repr(result)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["history"][2]["step"] == 2
    (line,) = result.plot().lines
    assert list(line.get_ydata()) == [row["train_loss"] for row in result.history]
    assert np.isnan(result.column("test_loss")).tolist() == [False] * 3
    with pytest.raises(ValueError, match="train_loss"):
        result.column("trainloss")
    pyplot.close("all")


def trained(place, kill=None, module=None, **changes):
    """A run of 6 steps with everything that a checkpoint has to keep; the process ends after step `kill`."""

    def end(row):
        if row["step"] == kill:
            os._exit(7)

    module = with_batch_norm() if module is None else module
    arguments = {
        "optimizer": functools.partial(torch.optim.AdamW, lr=0.01), "steps": 6, "block": 4, "penalty": 0.5,
        "scheduler": functools.partial(CosineAnnealingLR, T_max=6), "validation": points(seed=5), "ema": 0.5,
        "checkpoint_seconds": 0, "sharpness_every": 3, "callbacks": [end], "run_dir": place,
    }  # fmt: skip
    return noiseless.fit(module, LOSS, points(), **(arguments | changes))


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    whole = trained(tmp_path / "whole")
    killed = copies.execute(functools.partial(trained, tmp_path / "killed", 3), tmp_path)
    assert killed.code == 7, killed.err
    assert call("resume", tmp_path / "killed").code == 2
    assert "call fit again with the same arguments" in call("resume", tmp_path / "killed").err
    module = with_batch_norm()
    again = trained(tmp_path / "killed", module=module)
    assert again.digest == whole.digest
    timed = {"seconds", "asked_seconds"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in again.history] == [
        {k: v for k, v in row.items() if k not in timed} for row in whole.history
    ]
    assert len(again.history) == 6
    # the same call after the end returns the result, and restores the parameters
    other = with_batch_norm()
    ended = trained(tmp_path / "killed", 0, other)
    assert (ended.digest, ended.history) == (again.digest, again.history)
    assert same_bits(state(other), state(module))
    assert call("digest", tmp_path / "killed").out.strip() == whole.digest


def test_a_run_of_fit_is_a_run_for_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(Path("a"))
    trained(Path("b"), seed=1)
    assert (tmp_path / "a/report.html").stat().st_size > 10_000
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert config["python"] == {
        "model": "Sequential", "loss": "CrossEntropyLoss", "data": "tensors, 11 examples", "optimizer": "AdamW",
        "schedule": "CosineAnnealingLR",
    }  # fmt: skip
    assert config["recipe"]["model"]["name"] == "python:Sequential"
    for words in (["report", "a", "b"], ["watch", "a"], ["compare", "a", "--against", "b"], ["digest", "a"]):
        answer = call(*words)
        assert answer.code == 0, (words, answer.err)
    for words in (["evaluate", "a"], ["sharpness", "a"], ["verify", "a"]):
        answer = call(*words)
        assert answer.code == 2
        assert "was made by noiseless.fit" in answer.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": None}, 'needs an optimizer, such as optimizer="AdamW", or a recipe'),
        ({"steps": None}, "needs the number of steps"),
        ({"optimizer": "AdamV"}, "did you mean .*AdamW"),
        ({"recipe": "fb-cliped"}, "did you mean fb-clipped"),
        ({"blok": 4}, "unknown argument of fit 'blok'; did you mean block"),
        ({"label_smoothing": 0.1}, "unknown argument of fit 'label_smoothing'"),
        ({"lr": -1.0}, "lr"),
        ({"block": 99}, "block"),
        ({"optimizer": torch.optim.SGD, "lr": 0.1}, "lr is the optimizer's own"),
        ({"optimizer": lambda parameters: 3}, "function of the parameters that returns one, not of int"),
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))])}, "not trainable parameters of this model"),
        ({"scheduler": functools.partial(ReduceLROnPlateau)}, "follows a metric"),
        ({"scheduler": lambda o: OneCycleLR(o, 0.1, total_steps=3)}, "give cycle_momentum=False"),
        ({"scheduler": lambda o: "x"}, "must be a function of the optimizer"),
        ({"scheduler": lambda o: 0.1, "warmup": 2}, "warmup is the scheduler's matter"),
        (
            {"scheduler": StepLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), 2)},
            "scheduler=lambda optimizer: StepLR",
        ),
        ({"evaluate_every": 0}, "evaluate-every"),
    ],
)
def test_a_mistake_is_a_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        noiseless.fit(perceptron(), LOSS, points(), **({"optimizer": "SGD", "steps": 3} | changes))


def grouped(module, kind=torch.optim.SGD, **settings):
    """An optimizer whose body moves a tenth as fast as its head, and whose biases do not decay."""
    (body, _, head), small = module, {"weight_decay": 0.0}
    groups = [{"params": [body.weight], "lr": 0.02}, {"params": [body.bias], "lr": 0.02} | small]
    groups += [{"params": [head.weight], "lr": 0.2}, {"params": [head.bias], "lr": 0.2} | small]
    return kind(groups, weight_decay=0.1, **settings)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, Muon])
def test_groups_with_rates_of_their_own_have_the_bits_of_ones_own_loop(kind):
    expected, module = perceptron(), perceptron()
    loop, risk = grouped(expected, kind), EmpiricalRisk(expected, LOSS, points())
    scheduler = StepLR(loop, step_size=2, gamma=0.5)
    for number in range(5):
        take_step(loop, risk, number=number)
        scheduler.step()
    factory = functools.partial(StepLR, step_size=2, gamma=0.5)
    result = noiseless.fit(module, LOSS, points(), optimizer=grouped(module, kind), scheduler=factory, steps=5)
    torch.testing.assert_close(state(module), state(expected), rtol=1e-14, atol=0)  # 0.2 * 0.1 is 0.02 but for rounding
    assert result.column("lr").tolist() == [0.2, 0.2, 0.1, 0.1, 0.05]


@pytest.mark.parametrize(
    ("factory", "problem"),
    [
        (functools.partial(CosineAnnealingLR, T_max=6, eta_min=0.01), r"0\.02, 0\.02, 0\.2, 0\.2 at first"),
        (functools.partial(OneCycleLR, max_lr=0.3, total_steps=6, cycle_momentum=False), "OneCycleLR does not keep"),
    ],
)
def test_a_scheduler_keeps_the_rates_of_groups_in_proportion(factory, problem):
    module = perceptron()
    with pytest.raises(ValueError, match=problem):
        noiseless.fit(module, LOSS, points(), optimizer=grouped(module), scheduler=factory, steps=6)


def test_an_optimizer_with_one_direction_takes_one_rate():
    module = perceptron()
    groups = [{"params": module[0].parameters(), "lr": 0.1}, {"params": module[2].parameters(), "lr": 0.2}]
    with pytest.raises(ValueError, match="DampedLBFGS learns from its steps"):
        noiseless.fit(module, LOSS, points(), optimizer=DampedLBFGS(groups), steps=3)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Muon"])
def test_patterns_freeze_parameters_and_give_rates(optimizer):
    module, expected = with_batch_norm(), with_batch_norm()
    result = noiseless.fit(
        module, LOSS, points(), optimizer=optimizer, lr=0.1, weight_decay=0.2, steps=3, freeze=["0", "*4.bias"],
        lr_factors={"6": 1, "3.w*": 0.5, "*": 0.1}, decay_biases=False,
    )  # fmt: skip
    for name, p in expected.named_parameters():
        p.requires_grad_(not name.startswith("0.") and name != "4.bias")
    groups = [
        {"params": [expected[3].weight], "lr": 0.05},
        {"params": [expected[6].weight]},
        {"params": [expected[6].bias], "weight_decay": 0.0},
        {
            "params": [*expected[1].parameters(), expected[3].bias, expected[4].weight],
            "lr": 0.1 * 0.1,
            "weight_decay": 0.0,
        },
    ]
    loop = make_optimizer(optimizer, groups, lr=0.1, weight_decay=0.2)
    risk = EmpiricalRisk(expected, LOSS, points())
    for number in range(3):
        take_step(loop, risk, number=number)
    assert same_bits(state(module), state(expected))
    assert all(p.requires_grad for p in module.parameters())
    assert len(result.history) == 3
    assert torch.equal(module[0].weight, with_batch_norm()[0].weight)
    assert not torch.equal(module[1].running_mean, with_batch_norm()[1].running_mean)


def test_a_directory_is_of_one_run(tmp_path):
    trained(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run of other arguments \(penalty 0\.5 there and 0\.1 here\)"):
        trained(tmp_path / "run", penalty=0.1)
    with pytest.raises(ValueError, match="has changed since"):
        noiseless.fit(
            with_batch_norm(), LOSS, points(seed=9), optimizer=functools.partial(torch.optim.AdamW, lr=0.01), steps=6,
            block=4, penalty=0.5, scheduler=functools.partial(CosineAnnealingLR, T_max=6), ema=0.5,
            run_dir=tmp_path / "run",
        )  # fmt: skip
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(ValueError, match="is not an empty directory"):
        trained(tmp_path / "full")
