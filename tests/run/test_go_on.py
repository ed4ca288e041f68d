"""The command that a message names to go on with permits the code that this command has permitted."""

from __future__ import annotations

import re
import sys

import pytest
from small_runs import call, npz, prepare, refused, small_recipe

from noiseless.files.directory import RunDirectory
from noiseless.files.environment import environment
from noiseless.objective.workers import Alone
from noiseless.run.train import Interrupted, train
from noiseless.trust import trusting

CODE = "go_on_code:net"
SOURCE = """
from torch import nn

def net(channels, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, classes))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current directory, with a module of the user's own and the tiny data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "go_on_code.py").write_text(SOURCE)
    npz(tmp_path / "d.npz")
    yield tmp_path
    sys.modules.pop("go_on_code", None)


def test_of_a_run_that_was_stopped(place):
    with trusting(CODE):
        recipe = small_recipe("npz:d.npz", "fb", model=CODE)
        experiment = prepare(recipe, Alone(lambda: True), run_dir="run")
        directory = RunDirectory(place / "run")
        go_on = re.escape(f"go on with: noiseless resume {directory.path} --trust {CODE}")
        with (
            directory.created(experiment.config, environment(experiment.config, experiment.data_sha256, ["test"])),
            pytest.raises(Interrupted, match=f"{go_on}$"),
        ):
            train(experiment, directory)
    assert call("resume", "run", "--trust", CODE).code == 0


def test_of_a_run_that_is_there_already_or_has_ended(place):
    flags = ("--data", "npz:d.npz", "--steps", 1, "--block", 24, "--threads", 1, "--run-dir", "run")
    assert call("train", "fb", "--model", CODE, *flags).code == 0
    again = f"noiseless resume {place / 'run'} --trust {CODE}"
    refused("train", "fb", "--model", CODE, *flags, names=(f"go on with {again}, or",))
    ended = call("resume", "run", "--trust", CODE)
    assert f"noiseless evaluate run --trust {CODE}" in ended.out


def test_nothing_is_added_where_nothing_was_permitted(place):
    flags = ("--data", "npz:d.npz", "--steps", 1, "--block", 24, "--threads", 1, "--run-dir", "run")
    assert call("train", "fb", "--model", "linear", *flags).code == 0
    assert "--trust" not in refused("train", "fb", "--model", "linear", *flags, names=("noiseless resume",))
