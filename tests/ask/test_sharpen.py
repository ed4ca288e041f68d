"""The change of the sharpness in a run's steps: the causes add up to the step, and predict the eigenvalue after it."""

from __future__ import annotations

import pytest
import torch
from small_runs import call, npz, run, small_recipe, words

from noiseless.analysis import Hessian
from noiseless.ask.following import carry_out_steps
from noiseless.ask.options import SharpenOptions
from noiseless.ask.sharpen import prepare
from noiseless.ask.state import load_state
from noiseless.files.address import StateAddress
from noiseless.objective.workers import Alone, SweepStoppedError

SETTINGS = {"model": "linear", "dtype": "float64", "steps": 3, "warmup": 0, "horizon": 20, "augment": "none",
            "nesterov": False}  # fmt: skip
OPTIONS = SharpenOptions(steps=None, tolerance=1e-9)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def asked(directory, options=OPTIONS, workers=None, **callbacks):
    return carry_out_steps(prepare(StateAddress(directory, None), options, workers), **callbacks).values


def test_gradient_descent_has_no_other_cause_than_the_gradient(data, tmp_path):
    """The largest eigenvalues of dense Hessians at kept checkpoints; memory is rounding."""
    recipe = small_recipe(data, "fb", **SETTINGS, lr=0.05, momentum=0.0, weight_decay=0.0)
    directory = run(tmp_path / "a", recipe, keep_every=1)
    values = asked(directory)
    tops = []
    for step in range(3):
        state = load_state(StateAddress(directory, step))
        H = Hessian(state.risk).product(torch.eye(len(state.experiment.space), dtype=torch.float64))
        tops.append(float(torch.linalg.eigvalsh(H)[-1]))
    assert values["sharpness"] == pytest.approx(tops, rel=1e-8)
    assert values["after"][:2] == pytest.approx(tops[1:], rel=1e-8)
    for k, causes in enumerate(values["causes"]):
        change = values["change"][k]
        assert set(causes) == {"oscillation", "self-stabilisation", "gradient drift", "memory"}
        assert abs(causes["memory"]) < 1e-12
        assert sum(causes.values()) == pytest.approx(values["predicted"][k])
        assert values["predicted"][k] == pytest.approx(values["lr"][k] * values["flow"][k])
        assert abs(values["second_order"][k] - change) < 0.1 * abs(values["predicted"][k] - change)


@pytest.mark.parametrize(
    "flags",
    [
        {"momentum": 0.0, "weight_decay": 0.3, "decay_biases": False, "clip": 0.2},
        {"momentum": 0.0, "weight_decay": 0.1, "layer_rate": "lars"},
        {"momentum": 0.0, "weight_decay": 0.1, "penalty": 2.0, "penalty_method": "exact"},
        {"optimizer": "RMSprop", "momentum": 0.0, "weight_decay": 0.1, "lr": 0.01},
        {"optimizer": "AdamW", "weight_decay": 0.5, "lr": 0.01, "optimizer_options": "betas=(0.0,0.99)"},
    ],
)
def test_without_memory_the_parts_are_the_whole_step(data, tmp_path, flags):
    recipe = small_recipe(data, "fb", **SETTINGS | {"steps": 2, "lr": 0.05} | flags)
    values = asked(run(tmp_path / "a", recipe), SharpenOptions(steps=None, tolerance=1e-9, both_ends=False))
    for causes, total in zip(values["causes"], values["predicted"], strict=True):
        assert "decay" in causes and causes["decay"] != 0
        assert ("penalty" in causes) is ("penalty" in flags)
        assert abs(causes["memory"]) < 1e-9 * max(map(abs, causes.values()))
        assert sum(causes.values()) == pytest.approx(total)
    assert values["second_order"] == [None, None]


def test_a_stopped_question_goes_on_and_the_command_prints_the_causes(data, tmp_path):
    directory = run(tmp_path / "a", small_recipe(data, "fb", **SETTINGS, lr=0.05, momentum=0.9, weight_decay=0.0))
    whole, measured = asked(directory), []
    with pytest.raises(SweepStoppedError):
        asked(directory, workers=Alone(lambda: len(measured) >= 2), on_step=measured.append)
    seen = []
    again = asked(directory, on_start=seen.append)
    assert seen == [2]
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in whole.items() if k != "seconds"}
    assert whole["causes"][2]["memory"] != 0
    printed = call("sharpen", f"{directory.path}@1")
    assert printed.code == 0, printed
    assert "gradient drift" in printed.out
    assert "2 of 2 recorded steps have the bits of the record" in words(printed.out)


def test_steps_that_are_no_such_sum_are_not_split(data, tmp_path):
    recipe = small_recipe(data, "fb", **SETTINGS | {"steps": 1}, optimizer="Muon", lr=0.01)
    values = asked(run(tmp_path / "a", recipe))
    assert values["causes"][0] == pytest.approx({"step": values["predicted"][0]})
