"""The flatness of a run as a command: the library's numbers, kept as an answer, for any number of workers."""

from __future__ import annotations

import json
import sys

import jobs
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
def test_a_run_is_as_flat_as_its_risk(finished, tmp_path, batch_norm):
    mine = copy(finished, tmp_path / "run")
    before = files(mine.path)
    answer = call(
        "flatness", f"{mine.path}@1", "--radius", 0.3, "--tolerance", 0.3, "--most", 20, "--seed", 2,
        "--batch-norm", batch_norm, "--normalised", "layer",
    )  # fmt: skip
    assert answer.code == 0, answer
    assert {name: content for name, content in files(mine.path).items() if "analysis" not in name} == before
    expected = average_flatness(
        load_state(StateAddress(mine, 1)).risk, 0.3, "layer", seed=2, batch_norm=batch_norm, tolerance=0.3, most=20
    )
    (kept_answer,) = answers.read(mine, "flatness")
    found = kept_answer.values
    assert (found["step"], found["radius"], found["normalised"], found["batch_norm"]) == (1, 0.3, "layer", batch_norm)
    assert found["increases"] == expected.increases
    assert found["directions"] == len(expected.increases)
    assert (found["mean_increase"], found["standard_error"]) == (expected.mean, expected.standard_error)
    assert (found["stopped"], found["passes"]) == (expected.stopped, expected.passes)
    assert f"mean increase {expected.mean:.6g}, standard error" in answer.out
    assert "run@1: at most 20 directions (layer-normalised), 7 passes" in answer.out


def test_two_workers_find_the_same_bits(finished, tmp_path):
    found = []
    for number, workers in enumerate(([], ["--workers", "2"])):
        mine = copy(finished, tmp_path / f"run{number}")
        arguments = ["flatness", str(mine.path), "--most", "5", *workers]
        job = jobs.Job([sys.executable, "-m", "noiseless", *arguments], tmp_path / "log")
        assert job.wait() == 0, job.log.read_text()[-3000:]
        found.append(files(mine.path / "analysis"))
    assert found[0] == found[1]


def test_a_loss_that_is_not_finite_has_no_mean(finished, tmp_path):
    mine = copy(finished, tmp_path / "run")
    answer = call("flatness", mine.path, "--radius", "1e30", "--batch-norm", "running")
    assert answer.code == 0
    assert "not finite along direction 0 at radius 1e+30" in answer.out
    (found,) = (json.loads(path.read_text())["found"] for path in mine.path.glob("analysis/flatness-*.json"))
    assert (found["mean_increase"], found["stopped"], found["increases"]) == (None, "not finite", [None])


def test_numbers_out_of_range_are_refused(finished):
    for flag, value, name in (
        ("--radius", 0, "radius of flatness must be a positive, finite number, not 0.0"),
        ("--tolerance", "nan", "tolerance of flatness"),
        ("--most", 2, "at least 4 directions, not 2"),
        ("--seed", -1, "seed must lie in"),
    ):
        refused("flatness", finished.path, flag, value, names=(name,))
    refused("flatness", f"{finished.path}@7", names=("no state of step 7", "--keep-every"))
