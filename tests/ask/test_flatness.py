"""The `flatness` command: the library's numbers, saved as an answer, for any number of workers."""

from __future__ import annotations

import json

import pytest
from small_runs import call, copy, files, refused, run, small_recipe

from noiseless.analysis import average_flatness
from noiseless.ask.state import StateAddress, load_state
from noiseless.files import answers


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "run"
    return run(path, small_recipe(data, "fb-regularized", steps=2), keep_every=1)


@pytest.mark.parametrize("batch_norm", ["block", "running"])
def test_the_command_saves_the_flatness_of_the_risk(finished, tmp_path, batch_norm):
    directory = copy(finished, tmp_path / "run")
    before = files(directory.path)
    answer = call(
        "flatness", f"{directory.path}@1", "--radius", 0.3, "--tolerance", 0.3, "--most", 20, "--seed", 2,
        "--batch-norm", batch_norm, "--normalised", "layer",
    )  # fmt: skip
    assert answer.code == 0, answer
    assert {name: content for name, content in files(directory.path).items() if "analysis" not in name} == before
    expected = average_flatness(
        load_state(StateAddress(directory, 1)).risk, 0.3, "layer", seed=2, batch_norm=batch_norm, tolerance=0.3, most=20
    )
    (saved,) = answers.read(directory, "flatness")
    values = saved.values
    assert (values["step"], values["radius"], values["normalised"], values["batch_norm"]) == (
        1, 0.3, "layer", batch_norm,
    )  # fmt: skip
    assert values["increases"] == expected.increases
    assert values["directions"] == len(expected.increases)
    assert (values["mean_increase"], values["standard_error"]) == (expected.mean, expected.standard_error)
    assert (values["stopped"], values["passes"]) == (expected.stopped, expected.passes)
    assert f"mean increase {expected.mean:.6g}, standard error" in answer.out
    assert "run@1: at most 20 directions (layer-normalised), 7 passes" in answer.out


def test_two_workers_write_the_same_bits(finished, tmp_path):
    alone, together = copy(finished, tmp_path / "alone"), copy(finished, tmp_path / "together")
    assert call("flatness", alone.path, "--most", 5).code == 0
    assert call("flatness", together.path, "--most", 5, "--workers", 2).code == 0
    assert files(alone.path / "analysis") == files(together.path / "analysis") != {}


def test_a_loss_that_is_not_finite_has_no_mean(finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    answer = call("flatness", directory.path, "--radius", "1e30", "--batch-norm", "running")
    assert answer.code == 0
    assert "not finite along direction 0 at radius 1e+30" in answer.out
    (values,) = (json.loads(path.read_text())["found"] for path in directory.path.glob("analysis/flatness-*.json"))
    assert (values["mean_increase"], values["stopped"], values["increases"]) == (None, "not finite", [None])


def test_numbers_out_of_range_are_refused(finished):
    for flag, value, name in (
        ("--radius", 0, "--radius must be a positive number, not 0.0"),
        ("--tolerance", "nan", "--tolerance must be a finite number of at least 0, not nan"),
        ("--most", 2, "--most must be a finite number of at least 4, not 2"),
        ("--seed", -1, "--seed must be a finite number of at least 0, not -1"),
    ):
        refused("flatness", finished.path, flag, value, names=(name,))
    refused("flatness", f"{finished.path}@7", names=("no state of step 7", "--keep-every"))
