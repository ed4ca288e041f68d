"""`--stop-perfect`: at which step a run ends, with which record and files, and after interrupts."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby

import pytest
from small_runs import call, copy, record, resume, run, small_recipe

from noiseless.files.directory import RunDirectory
from noiseless.recipes import ladder
from noiseless.report import summary
from noiseless.study.processes import execute
from noiseless.study.reproduce import Job

STEPS = 20


def recipe_of(data, **changes):
    # float64: another machine's rounding must not change a prediction
    settings = {"model": "resnet8", "steps": STEPS, "warmup": 0, "horizon": STEPS, "dtype": "float64"}
    return small_recipe(data, "sgd", **settings, **changes)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The same run without --stop-perfect, to its last step."""
    return run(tmp_path_factory.mktemp("perfect") / "undisturbed", recipe_of(data), evaluate_every=1)


@pytest.fixture(scope="module")
def streaks(undisturbed):
    """(first step, steps) of each row of steps in which all training examples were correct."""
    rows = [(row["step"], row["train_accuracy"] == 1) for row in undisturbed.rows()]
    parts = [(perfect, list(group)) for perfect, group in groupby(rows, key=lambda pair: pair[1])]
    return [(group[0][0], len(group)) for perfect, group in parts if perfect]


@pytest.fixture(scope="module")
def ending(streaks):
    """n, and the step after which a run with --stop-perfect n ends; an earlier row of steps is too short for it."""
    n = streaks[0][1] + 1
    first = next(start for start, steps in streaks if steps >= n)
    return n, first + n - 1


@pytest.fixture(scope="module")
def ended_command(data, ending, tmp_path_factory):
    """A run by the command that ends early, and the command's output."""
    path = tmp_path_factory.mktemp("perfect") / "ended"
    small = "--form small --model resnet8 --dtype float64 --block 16 --warmup 0 --threads 1"
    shown = f"--steps {STEPS} --horizon {STEPS} --stop-perfect {ending[0]} --checkpoint-seconds 0 --keep 99"
    flags = [*small.split(), *shown.split()]
    answer = call("train", "sgd", "--data", data, *flags, "--run-dir", path)
    assert answer.code == 0, answer.err
    return RunDirectory(path), answer.out


@pytest.fixture(scope="module")
def ended(ended_command):
    return ended_command[0]


def test_a_run_ends_after_that_many_steps_in_a_row(ended, undisturbed, ending, streaks):
    n, last = ending
    assert streaks[0][0] + n < last < STEPS - 1  # there was a shorter row of perfect steps, and steps were left
    rows, others = record(ended)[1], record(undisturbed)[1]
    assert [row["step"] for row in rows] == list(range(last + 1))
    for row, longer_row in zip(rows, others[: last + 1], strict=True):
        row.pop("final", None)  # the digest of the end
        assert {key: longer_row[key] for key in row} == row
    assert {"test_loss", "test_accuracy"} <= rows[-1].keys()
    assert record(ended)[0] != record(undisturbed)[0]


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_resumed_run_ends_at_the_same_step_even_without_its_rows(before, data, ended, ending, tmp_path):
    n, last = ending
    assert n > 1  # so that a stop one step before the end falls into the row of steps
    directory = run(tmp_path / "run", ended.config().recipe, stop_after=last - 1 - before)
    assert not directory.model.exists()
    first_rows = directory.metrics.read_text()
    directory.metrics.write_text("")  # the count is the checkpoint's
    (message,) = resume(directory)
    assert f"lacks {last - before} of the {last - before} rows" in message
    directory.metrics.write_text(first_rows + directory.metrics.read_text())
    assert record(directory) == record(ended)


def test_a_run_killed_after_its_last_step_takes_no_further_step(ended, tmp_path):
    directory = copy(ended, tmp_path / "run")
    directory.model.unlink()
    assert resume(directory) == []
    assert record(directory) == record(ended)


def test_a_run_that_ends_early_counts_as_ended_everywhere(ended, ending):
    assert "has ended" in call("resume", ended.path).out
    answer = call("evaluate", ended.path)
    assert "train  loss" in answer.out
    assert "not ended" not in answer.out
    (run_,) = summary.read([ended])
    (line,) = summary.by_recipe([run_])
    cells = dict(zip(summary.HEADINGS, line.cells(), strict=True))
    assert (cells["row"], cells["steps"]) == ("sgd", str(ending[1] + 1))
    assert f"{ending[1] + 1:5d} steps" in summary.line(run_)


def test_a_run_that_lacks_its_end_is_unfinished_whatever_its_rows(ended, tmp_path):
    directory = copy(ended, tmp_path / "run")
    directory.model.unlink()
    (line,) = summary.by_recipe(summary.read([directory]))
    assert line.cells()[0] == "sgd (unfinished)"


def test_the_progress_bar_is_full_at_the_end(ended_command, ending):
    last = ending[1]
    assert re.search(rf"\b{last + 1}/{last + 1}\b", ended_command[1]), ended_command[1]


def test_a_ladder_ends_with_full_bars_and_the_same_run(data, ending, ended, tmp_path, monkeypatch):
    monkeypatch.setitem(ladder.RECIPES, "sgd", lambda: ended.config().recipe)
    monkeypatch.setenv("COLUMNS", "200")
    flags = ("--data", data, "--form", "paper", "--rows", "sgd", "--model", "resnet8", "--seeds", 1, "--jobs", 1)
    answer = call("reproduce", *flags, "--run-dir", tmp_path)
    assert answer.code == 0, answer.err
    assert re.search(rf"all runs, in passes .* {STEPS}/{STEPS} ", answer.out), answer.out
    assert re.search(rf"sgd seed 0 +{ending[1] + 1} steps", answer.out)
    assert "unfinished" not in answer.out
    assert record(RunDirectory(tmp_path / "sgd-seed0")) == record(ended)


def test_the_ladder_keeps_a_run_that_ended_early(data, ended, tmp_path):
    recipe = replace(ended.config().recipe, seed=0)
    job = Job(recipe, copy(ended, tmp_path / "sgd-seed0").path)
    assert job.finished
    outcomes: list[object] = []
    execute([job], 1, lambda job, row: outcomes.append(row), lambda job, why: outcomes.append(why))
    assert outcomes == [None]
