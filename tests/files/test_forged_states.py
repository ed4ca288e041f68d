"""States whose digests fit, but that this run has not written: one sentence, or the run goes on from what is whole."""

from __future__ import annotations

import json

import pytest
import torch
from damaged_subjects import stopped
from small_runs import call, copy, refused, run, small_recipe

from noiseless import models
from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory
from noiseless.run import within


def forge(folder, change):
    """Changes the state in the newest checkpoint of a folder and writes it with the digests that fit; older ones go."""
    newest = checkpoint.newest(folder)
    state = change(newest.state)
    for path in folder.iterdir():
        path.unlink()
    checkpoint.save(folder, newest.step, state, keep=1)


@pytest.fixture(scope="module")
def asked(data, tmp_path_factory):
    """A run of a linear model, stopped after its second step, that keeps eigenvectors and an average."""
    recipe = small_recipe(data, "fb", model="linear", ema=0.5)
    return run(tmp_path_factory.mktemp("asked") / "run", recipe, stop_after=1, sharpness_every=1, layers_every=1)


@pytest.mark.parametrize("vectors", [torch.ones(2, 5), torch.ones(3, dtype=torch.float64)])
def test_eigenvectors_of_another_model_are_refused(asked, tmp_path, vectors):
    directory = copy(asked, tmp_path / "run")
    names = list(checkpoint.newest(directory.checkpoints).state["questions"]["vectors"])
    assert names
    questions = {"vectors": dict.fromkeys(names, vectors), "start": None}
    forge(directory.checkpoints, lambda state: state | {"questions": questions})
    refused("resume", directory.path, names=("the eigenvectors in its checkpoint are not of this model",))


def test_an_average_of_another_model_is_refused(asked, tmp_path):
    directory = copy(asked, tmp_path / "run")
    forge(directory.checkpoints, lambda state: state | {"average": {"other": torch.ones(3)}})
    refused("resume", directory.path, names=(directory.checkpoints, "is not of this model", "unknown other"))


@pytest.fixture(scope="module")
def adam(data, tmp_path_factory):
    """A run of AdamW, stopped after its second step."""
    recipe = small_recipe(data, "fb", model="linear", optimizer="AdamW", lr=1e-3)
    return run(tmp_path_factory.mktemp("adam") / "run", recipe, stop_after=1)


@pytest.mark.parametrize("command", ["weights", "noise", "sharpness --preconditioned", "resume"])
def test_the_state_of_another_optimizer_is_refused(adam, tmp_path, command):
    directory = copy(adam, tmp_path / "run")

    def other(state):
        states = {
            k: part | {"exp_avg": torch.ones(7), "exp_avg_sq": None} for k, part in state["optimizer"]["state"].items()
        }
        return state | {"optimizer": state["optimizer"] | {"state": states}}

    forge(directory.checkpoints, other)
    name, *flags = command.split()
    refused(name, directory.path, *flags, names=("does not hold a state of this run's model and optimizer",))


@pytest.mark.parametrize(
    "done", [[], [{"loss": 1.0}], "x", [1], [{"loss": 1.0, "penalty": 0.0, "hits": "3", "count": 8}]]
)
def test_a_state_within_a_step_that_is_of_no_run_is_left_out(data, tmp_path, done):
    recipe = small_recipe(data, "sgd", model="linear", steps=2, block=8)
    expected = checkpoint.digest(run(tmp_path / "whole", recipe).state())
    stopped(tmp_path / "run", recipe, 1)
    directory = RunDirectory(tmp_path / "run")
    assert within.read(directory) is not None
    forge(directory.path / within.FOLDER, lambda state: state | {"done": done})
    assert within.read(directory) is None
    assert call("resume", directory.path).code == 0
    assert checkpoint.digest(directory.state()) == expected


def test_a_run_is_exported_though_its_last_row_has_no_passes(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    *rows, last = directory.rows()
    last["passes"] = [1]
    directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in (*rows, last)))
    assert call("export", directory.path, tmp_path / "exported").code == 0
    assert "| passes over the data | not recorded |" in (tmp_path / "exported" / "README.md").read_text()


def test_an_option_beyond_a_float_is_one_sentence():
    with pytest.raises(ValueError, match="pyramidnet110 cannot be built for 3 channels and 4 classes with the options"):
        models.build("pyramidnet110", 3, 4, options={"alpha": 10**400})
