"""`noiseless fork`: what it computes beside runs from scratch, resume, workers, wrong input."""

from __future__ import annotations

import json

import numpy as np
import printed
import pytest
from small_runs import call, copy, files, npz, record, refused, run, small_recipe, words

from noiseless.commands import fork as command
from noiseless.files import answers, checkpoint, predictions
from noiseless.files.address import StateAddress
from noiseless.files.directory import RunDirectory
from noiseless.files.parting import compare_states
from noiseless.objective.workers import Alone, SweepStoppedError
from noiseless.run.train import Interrupted
from noiseless.study import fork
from noiseless.study.forks import ForkOptions, prepare

FLIPPED = "layers.1.weight[2,7]:3"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A linear model after 4 steps of momentum, with the states of steps 0, 2 and 4."""
    recipe = small_recipe(data, "sgd", model="linear", steps=4, momentum=0.9)
    return run(tmp_path_factory.mktemp("runs") / "run", recipe, keep_every=2)


def found(directory: RunDirectory) -> dict:
    """The values of the only answer."""
    (answer,) = answers.read(directory, "fork")
    return answer.values


def parameter(directory: RunDirectory) -> str:
    """The name of the weight."""
    return next(name for name in directory.state() if name.endswith("weight"))


def test_without_a_change_the_runs_are_equal_to_the_bit(finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    before = files(directory.path)
    answer = call("fork", f"{directory.path}@2")
    assert (answer.code, answer.err) == (0, "")
    assert "equal to the bit after 4 steps" in words(answer.out)
    values = found(directory)
    assert values["steps"] == [2, 3, 4]
    assert values["distance"] == [0.0] * 3
    assert values["different"] == [0] * 3
    assert values["changed_at_start"] == {}
    assert values["parted"] is None
    assert values["equal_ends"]
    assert values["reproduced"] == {"steps": 2, "parted": None}  # the steps that the run itself has made
    base = RunDirectory(directory.path / values["runs"][0])
    assert checkpoint.digest(base.state()) == checkpoint.digest(directory.state())
    after = files(directory.path)
    assert {name: after[name] for name in before} == before  # nothing of the run is changed


def test_a_changed_run_is_the_run_from_scratch(finished, data, tmp_path):
    """From the initial state, the changed run is what `train` makes of the changed recipe: record and parameters."""
    directory = copy(finished, tmp_path / "run")
    assert call("fork", f"{directory.path}@0", "--change", "lr=0.02", "momentum=0.5", "--points", 5).code == 0
    values = found(directory)
    assert values["changes"] == {"lr": [0.1, 0.02], "momentum": [0.9, 0.5]}
    other = run(tmp_path / "other", small_recipe(data, "sgd", model="linear", steps=4, momentum=0.5, lr=0.02))
    changed = RunDirectory(directory.path / values["runs"][1])
    assert record(changed) == record(other)
    assert values["parted"]["step"] == 1  # the warm-up begins at lr 0
    vectors = [
        np.concatenate([t.double().flatten().numpy() for t in state.state().values()]) for state in (directory, other)
    ]
    assert values["distance"][-1] == pytest.approx(np.linalg.norm(vectors[0] - vectors[1]), rel=1e-9)
    one, two = (predictions.read(path) for path in (directory.path, other.path))
    images = values["images"]
    assert images["only_first"] == int((one.correct & ~two.correct).sum())
    assert images["only_second"] == int((~one.correct & two.correct).sum())
    assert [k for k, *_ in images["differ"]] == np.flatnonzero(one.predicted != two.predicted).tolist()
    errors = [1 - of_run.correct.mean() for of_run in (one, two)]
    assert [values["line"]["test_error"][k] for k in (0, -1)] == pytest.approx(errors)
    assert values["barriers"]["loss"]["height"] <= 0  # the loss of a linear model is convex
    assert values["passes"] == pytest.approx(4 + 4 + 5 / 3)


def test_settings_of_the_optimizer_change_in_the_middle(finished, tmp_path):
    """A checkpoint holds the settings of its optimizer; with these, both runs would be equal."""
    directory = copy(finished, tmp_path / "run")
    assert call("fork", f"{directory.path}@2", "--change", "weight_decay=0.5", "--points", 3).code == 0
    values = found(directory)
    assert values["notes"] == []
    assert values["distance"][0] == 0
    assert values["distance"][1] > 0


def test_one_bit_is_all_that_differs_at_the_start(finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    name = parameter(directory)
    assert call("fork", f"{directory.path}@2", "--flip-bit", f"{name}[2,7]:3", "--points", 3).code == 0
    values = found(directory)
    assert values["changed_at_start"] == {name: 1}
    assert values["flip"] == {"name": name, "index": [2, 7], "bit": 3}
    number = checkpoint.at(directory.checkpoints, 2)["model"][name][2, 7].numpy()
    other = (number.view(np.uint32) ^ np.uint32(8)).view(np.float32)
    assert values["distance"][0] == abs(float(other) - float(number))
    assert values["different"][0] == 1
    assert values["distance"][-1] > values["distance"][0]
    first = compare_states(*(RunDirectory(directory.path / path) for path in values["runs"]), 2).first
    assert (first.name, first.others) == (name, 0)
    assert first.problem.startswith("1 of ")


def test_a_state_that_is_not_kept_is_made_again(finished, data, tmp_path):
    directory = copy(finished, tmp_path / "run")
    kept = run(tmp_path / "kept", small_recipe(data, "sgd", model="linear", steps=4, momentum=0.9), keep_every=1)
    for path in (directory.path, kept.path):
        assert call("fork", f"{path}@3", "--change", "lr=0.02", "--points", 3).code == 0
    assert found(directory) == found(kept)
    rows = directory.rows()
    rows[2]["train_loss"] += 1e-12
    directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = copy(finished, tmp_path / "again")
    again.metrics.write_text(directory.metrics.read_text())
    refused("fork", f"{again.path}@3", names=("step 2 has other numbers", "train_loss"))


def options(*changes: str) -> ForkOptions:
    return ForkOptions(lambda config: command.changed(config, changes), points=3)


@pytest.mark.parametrize("rows", [1, 5, 8])
def test_an_interrupted_fork_goes_on_to_the_same_answer(finished, tmp_path, rows):
    """Stopped in the unchanged run, in the changed run, and on the line."""
    at_once, halted = copy(finished, tmp_path / "at-once"), copy(finished, tmp_path / "halted")
    answer = fork.carry_out(prepare(StateAddress(at_once, 0), options("lr=0.02"), Alone()))
    seen = []
    job = prepare(StateAddress(halted, 0), options("lr=0.02"), Alone(lambda: len(seen) >= rows))
    with pytest.raises((Interrupted, SweepStoppedError)):
        fork.carry_out(job, on_row=lambda *row: seen.append(row))
    assert len(seen) == rows
    continued = fork.carry_out(prepare(StateAddress(halted, 0), options("lr=0.02"), Alone()))
    assert continued == answer


def test_two_workers_save_the_same_bits(finished, tmp_path):
    alone, together = copy(finished, tmp_path / "alone"), copy(finished, tmp_path / "together")
    flags = ("--change", "seed=1", "--points", 3, "--steps", 1)
    assert call("fork", f"{alone.path}@0", *flags).code == 0
    code, out = printed.launch(2, tmp_path / "log", "fork", f"{together.path}@0", *flags)
    assert (code, out.count("saved:")) == (0, 1), out
    (one,), (two,) = (list((of.path / "analysis").glob("fork-*.json")) for of in (alone, together))
    assert one.read_bytes() == two.read_bytes()


def test_an_estimate_writes_nothing(finished, tmp_path):
    directory = copy(finished, tmp_path / "run")
    before = files(directory.path)
    answer = call("fork", f"{directory.path}@3", "--change", "lr=0.02", "--estimate")
    assert answer.code == 0
    assert "1 steps to make again, 2 runs of 1 steps, 11 points of the line; 14 passes" in words(answer.out)
    assert files(directory.path) == before


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("@4",), ("4 steps", "none is left after step 4")),
        (("@0", "--change", "lr"), ("--change", "FLAG=VALUE", "'lr'")),
        (("@0", "--change", "larning=1"), ("--larning",)),
        (("@0", "--change", "lr=-1"), ("lr", "-1")),
        (("@0", "--change", "model=resnet8"), ("--change model", "state")),
        (("@0", "--change", "run-dir=x"), ("--change run-dir", "no step")),
        (("@0", "--flip-bit", "weight[0"), ("--flip-bit", "NAME[INDEX]:BIT")),
        (("@0", "--flip-bit", "nothing[0]:1"), ("no parameter 'nothing'", "weight")),
        (("@0", "--points", 2), ("--points", "2")),
        (("@0", "--steps", 0), ("--steps", "0")),
    ],
)
def test_wrong_input_is_one_sentence(finished, flags, names):
    at, *rest = flags
    before = files(finished.path)
    refused("fork", f"{finished.path}{at}", *rest, names=names)
    assert files(finished.path) == before


def test_a_bit_that_does_not_exist_is_refused(finished):
    name = parameter(finished)
    before = files(finished.path)
    refused("fork", f"{finished.path}@0", "--flip-bit", f"{name}[99,0]:0", names=("no element [99, 0]",))
    refused("fork", f"{finished.path}@0", "--flip-bit", f"{name}[0,0]:32", names=("bits 0 to 31", "32"))
    assert files(finished.path) == before
