"""The average of a run's states: its formula, its place in record and files; stops and kills do not change it."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import call, copy, prepare, record, refused, resume, run, small_recipe
from torch import nn

from noiseless.files import checkpoint
from noiseless.run.average import Average
from noiseless.run.evaluate import score

MOMENTUM, STEPS = 0.7, 4


def recipe_of(data, name="fb-practice", **changes):
    return small_recipe(data, name, steps=STEPS, ema=MOMENTUM, **changes)


def average_digest(directory):
    return checkpoint.digest(directory.state(average=True))


@pytest.fixture(scope="module")
def averaged_run(data, tmp_path_factory):
    """A run that keeps an average, evaluated at each step, with a checkpoint after each."""
    path = tmp_path_factory.mktemp("average") / "whole"
    return run(path, recipe_of(data), checkpoint_seconds=0, keep=9)


def _module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.floats(0, 0.99), st.lists(st.floats(-10, 10), min_size=1, max_size=6))
def test_the_average_is_the_weighted_sum_of_all_states(momentum, levels):
    module = _module()
    average, first = Average(module, momentum), module[0].weight.detach().clone()
    for level in levels:
        nn.init.constant_(module[0].weight, level)
        average.update()
    # unrolled: m**T s_0 + (1 - m) sum_t m**(T - t) s_t
    count = len(levels)
    weights = [(1 - momentum) * momentum ** (count - t) for t in range(1, count + 1)]
    expected = momentum**count * first + sum(w * level for w, level in zip(weights, levels, strict=True))
    # some ten roundings of 1e-16 of values up to 10
    torch.testing.assert_close(average.state["0.weight"], expected, rtol=1e-13, atol=1e-13)


def test_without_momentum_the_average_is_the_newest_state_and_counters_are_copied():
    module = _module()
    newest, slow = Average(module, 0.0), Average(module, 0.9)
    module(torch.randn(5, 2).double())  # moves the running statistics and the counter
    for average in (newest, slow):
        average.update()
        assert average.state["1.num_batches_tracked"] == 1
    assert checkpoint.digest(newest.state) == checkpoint.digest(module.state_dict())
    assert not torch.equal(slow.state["1.running_mean"], module[1].running_mean)


def test_while_the_average_is_installed_the_model_has_its_values_and_then_its_own_again():
    module = _module()
    average = Average(module, 0.5)
    nn.init.ones_(module[0].weight)
    average.update()
    before, address = checkpoint.digest(module.state_dict()), module[0].weight.data_ptr()
    with pytest.raises(ZeroDivisionError), average.installed():
        assert checkpoint.digest(module.state_dict()) == checkpoint.digest(average.state) != before
        raise ZeroDivisionError
    assert checkpoint.digest(module.state_dict()) == before
    assert module[0].weight.data_ptr() == address  # theta's views stay views


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(ValueError, match=rf"a number in \[0, 1\), not {momentum}"):
        Average(_module(), momentum)


@pytest.mark.parametrize("momentum", ["1", "-0.5", "nan"])
def test_a_flag_out_of_range_is_refused(momentum, data, tmp_path):
    refused("train", "fb", "--data", data, "--ema", momentum, "--run-dir", tmp_path / "run", names=("--ema", momentum))
    assert not (tmp_path / "run").exists()


def test_a_run_averages_its_initial_state_and_the_state_after_each_step(averaged_run):
    states = [checkpoint.read(averaged_run.checkpoints / f"step-{t:08d}.json")[1]["model"] for t in range(STEPS + 1)]
    averages = averaged_run.state(average=True)
    assert averages.keys() == states[0].keys()
    for name, average in averages.items():
        if not average.is_floating_point():
            assert torch.equal(average, states[-1][name])
            continue
        parts = [(1 - MOMENTUM) * MOMENTUM ** (STEPS - t) * states[t][name].double() for t in range(1, STEPS + 1)]
        expected = MOMENTUM**STEPS * states[0][name].double() + sum(parts)
        # float32: each of the four steps rounds three times, to 6e-8 of what it adds up
        torch.testing.assert_close(average.double(), expected, rtol=1e-6, atol=1e-6)


def test_rows_evaluate_the_average_and_training_does_not_depend_on_it(averaged_run, data, tmp_path):
    plain = run(tmp_path / "plain", small_recipe(data, steps=STEPS))
    assert record(plain)[0] == record(averaged_run)[0]  # the model is that of a run without average
    evaluated = ("test_loss", "test_accuracy", "final")
    rows, plain_rows = (
        [{k: v for k, v in row.items() if k not in evaluated} for row in record(d)[1]] for d in (averaged_run, plain)
    )
    assert rows == plain_rows
    last, experiment = averaged_run.rows()[-1], prepare(averaged_run.config().recipe)
    scores = []
    for average in (True, False):
        experiment.model.load_state_dict(averaged_run.state(average))
        scores.append(score(experiment.model, experiment.test))
    assert (last["test_loss"], last["test_accuracy"]) == (scores[0].loss, scores[0].accuracy)
    assert scores[0].loss != scores[1].loss == plain.rows()[-1]["test_loss"]
    assert not plain.average.exists()


@pytest.mark.parametrize("name", ["fb-practice", "sgd"])
def test_a_resumed_run_has_the_average_of_one_that_was_never_stopped(name, data, tmp_path):
    recipe = recipe_of(data, name)
    undisturbed = run(tmp_path / "undisturbed", recipe)
    for step in range(STEPS - 1):
        directory = run(tmp_path / f"stopped-{step}", recipe, stop_after=step)
        assert resume(directory) == []
        assert record(directory) == record(undisturbed), f"stopped after step {step}"
        assert average_digest(directory) == average_digest(undisturbed), f"stopped after step {step}"


def test_a_run_killed_between_its_two_last_files_ends_the_same(averaged_run, tmp_path):
    directory = copy(averaged_run, tmp_path / "run")
    directory.model.unlink()  # the average is written first: the model marks the end
    directory.average.write_bytes(b"half")
    resume(directory)
    assert record(directory) == record(averaged_run)
    assert average_digest(directory) == average_digest(averaged_run)


LINE = r"test +loss ([\d.]+) +accuracy ([\d.]+)%"


def test_evaluate_prints_which_parameters_it_evaluates(averaged_run):
    answer = call("evaluate", averaged_run.path)
    assert answer.code == 0, answer.err
    first, second = answer.out.split("final parameters:")
    assert "exponential average of the parameters (momentum 0.7)" in first
    last, loss = averaged_run.rows()[-1], re.search(LINE, first)
    assert loss is not None
    assert (float(loss[1]), float(loss[2])) == (pytest.approx(last["test_loss"], abs=1e-6), 100 * last["test_accuracy"])
    other = re.search(LINE, second)
    assert other is not None
    assert other[1] != loss[1]


def test_evaluate_of_a_run_that_has_not_ended_uses_the_average_in_the_newest_checkpoint(data, tmp_path):
    directory = run(tmp_path / "run", recipe_of(data), stop_after=1)
    answer = call("evaluate", directory.path)
    assert "the run has not ended: these are the results of its newest checkpoint" in answer.out
    line = re.search(LINE, answer.out)
    assert line is not None
    assert float(line[1]) == pytest.approx(directory.rows()[1]["test_loss"], abs=1e-6)


def test_evaluate_refuses_a_run_whose_average_is_missing(averaged_run, tmp_path):
    directory = copy(averaged_run, tmp_path / "run")
    directory.average.unlink()
    refused("evaluate", directory.path, names=("there is no file", directory.average))
