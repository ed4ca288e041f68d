"""Trackers: what reaches them, that a resumed run goes on with one series, and that they cannot harm a run."""

from __future__ import annotations

import contextlib
import json
import math
import sys

import numpy as np
import pytest
import tracker_files
from small_runs import files, record, resume, run, small_recipe

from noiseless.files.directory import RunDirectory
from noiseless.objective.workers import Alone
from noiseless.recipes.config import Config, Settings
from noiseless.run.build import rebuild
from noiseless.run.trackers import flat
from noiseless.run.tracking import Tracking, chosen
from noiseless.run.train import Interrupted, Progress, train

TENSORBOARD = Settings(tensorboard=True)


class Kept:
    """A tracker that keeps what it gets, and fails where it is told to."""

    def __init__(self, holds=0, fails_at=None, fails_to=""):
        self.name = "kept"
        self.rows, self.ends = [], 0
        self.holds, self.fails_at, self.fails_to = holds, fails_at, fails_to

    def begin(self, config, directory):
        if self.fails_to == "begin":
            raise RuntimeError("no\nlogin")
        return self.holds

    def log(self, row):
        if row["step"] == self.fails_at:
            raise OSError("the network\n  is gone")
        self.rows.append(row)

    def end(self):
        self.ends += 1
        if self.fails_to == "end":
            raise RuntimeError("too late")

    def where(self):
        return "here"

    @property
    def steps(self):
        return [row["step"] for row in self.rows]


def go_on_with(directory, trackers, stop_after=None):
    """Resumes a run with trackers, to its end or to a step; gives what was told."""
    told, done = [], [-1]
    experiment = rebuild(directory, Alone(lambda: stop_after is not None and done[-1] >= stop_after))
    with directory.locked(), Tracking(trackers, experiment.config, directory, told.append) as tracking:

        def on_row(row):
            done.append(row["step"])
            tracking.log(row)

        with contextlib.suppress(Interrupted):
            train(experiment, directory, Progress(on_row))
    return told


@pytest.fixture
def begun(data, tmp_path):
    """Two steps of five, with a checkpoint after each."""
    return run(tmp_path / "run", small_recipe(data, steps=5), stop_after=1, checkpoint_seconds=0, keep=9)


def killed(directory, step):
    """Takes the checkpoints from a step on away, as if the run had been killed before it wrote them."""
    for path in directory.checkpoints.iterdir():
        if int(path.stem.removeprefix("step-")) >= step:
            path.unlink()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"step": 3, "lr": 0.5}, {"step": 3, "lr": 0.5}),
        ({"a": None, "b": math.nan, "c": -math.inf, "d": "text"}, {}),
        ({"eigenvalues": [3.0, None, 1.0]}, {"eigenvalues/0": 3.0, "eigenvalues/2": 1.0}),
        (
            {"layers": {"stem.weight": {"norm": 1.0, "distance": math.nan}, "head.bias": {"norm": 0.0}}},
            {"layers/stem.weight/norm": 1.0, "layers/head.bias/norm": 0.0},
        ),
        ({"a": [{"b": (1, 2)}, []], "c": {}}, {"a/0/b/0": 1, "a/0/b/1": 2}),
    ],
)
def test_rows_are_flat(row, expected):
    assert flat(row) == expected


def test_a_tracker_gets_the_rows_of_the_record(begun):
    tracker = Kept()
    assert go_on_with(begun, [tracker]) == []
    assert tracker.rows == [flat(row) for row in begun.rows()]
    assert tracker.steps == [0, 1, 2, 3, 4]  # those before it was there as well
    assert tracker.ends == 1


def test_a_tracker_that_holds_rows_gets_those_after_them(begun):
    killed(begun, 2)
    tracker = Kept(holds=1)
    go_on_with(begun, [tracker])
    assert tracker.steps == [1, 2, 3, 4]
    late = Kept(holds=9)  # it holds what was computed after the checkpoint: rows come again, for it to take or leave
    killed(begun, 2)
    begun.model.unlink()
    go_on_with(begun, [late])
    assert late.steps == [1, 2, 3, 4]


def test_one_that_fails_is_left_out_and_the_run_goes_on(begun, data, tmp_path):
    failing, other = Kept(fails_at=3), Kept()
    told = go_on_with(begun, [failing, other])
    assert told == ["kept is left out from step 3 on: the network is gone. The run goes on"]
    assert failing.steps == [0, 1, 2]
    assert other.steps == [0, 1, 2, 3, 4]
    whole = run(tmp_path / "whole", small_recipe(data, steps=5), checkpoint_seconds=0, keep=9)
    assert record(begun) == record(whole)


def test_one_that_fails_with_an_earlier_row_is_told_once(begun):
    failing = Kept(fails_at=0)
    assert len(go_on_with(begun, [failing])) == 1
    assert failing.rows == []


def test_one_that_cannot_end_is_told(begun):
    assert go_on_with(begun, [Kept(fails_to="end")]) == [
        "kept could not end: too late. The run's own record is complete"
    ]
    assert begun.model.exists()


def test_one_that_cannot_begin_stops_the_run_before_its_first_step(begun):
    before, first = files(begun.path), Kept()
    with pytest.raises(ValueError, match=r"--kept cannot begin \(no login\).*noiseless resume .*--untracked") as error:
        go_on_with(begun, [first, Kept(fails_to="begin")])
    assert "\n" not in str(error.value)
    assert first.ends == 1
    after = files(begun.path)
    assert {name: after[name] for name in before if name != "lock"} == {k: v for k, v in before.items() if k != "lock"}


def test_a_project_needs_a_name():
    with pytest.raises(ValueError, match="--wandb needs the name of a project, not ' '"):
        chosen(Settings(wandb=" "))


@pytest.mark.parametrize(
    ("settings", "module", "extra"),
    [
        (TENSORBOARD, "torch.utils.tensorboard", "tensorboard"),
        (Settings(wandb="p"), "wandb", "wandb"),
    ],
)
def test_a_missing_package_comes_with_the_command_that_installs_it(monkeypatch, settings, module, extra):
    monkeypatch.setitem(sys.modules, module, None)  # as Python marks what cannot be imported
    with pytest.raises(ValueError, match=f"--{extra} needs a package") as error:
        chosen(settings)
    assert f'pip install "noiseless[{extra}]"' in str(error.value)
    assert "\n" not in str(error.value)


def test_without_flags_nothing_is_chosen():
    assert chosen(Settings()) == []


def expected(directory):
    """The record as series, in float32 as TensorBoard keeps numbers."""
    points = [
        (name, int(row["step"]), float(np.float32(value)))
        for row in directory.rows()
        for name, value in flat(row).items()
        if name != "step"
    ]
    return tracker_files.gathered(points)


def test_tensorboard_holds_the_record(begun):
    assert go_on_with(begun, chosen(TENSORBOARD)) == []
    assert tracker_files.tensorboard(begun.path) == expected(begun)
    assert set(tracker_files.tensorboard(begun.path)["train_loss"]) == {0, 1, 2, 3, 4}


def test_tensorboard_keeps_the_config(begun):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    go_on_with(begun, chosen(TENSORBOARD))
    events = EventAccumulator(str(begun.path / "tensorboard"))
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    assert Config.from_json(json.loads(text.tensor_proto.string_val[0])) == begun.config()


def test_tensorboard_purges_what_a_resumed_run_computes_again(begun):
    assert go_on_with(begun, chosen(TENSORBOARD), stop_after=3) == []
    before = tracker_files.tensorboard(begun.path)
    assert set(before["train_loss"]) == {0, 1, 2, 3}
    killed(begun, 3)
    assert go_on_with(begun, chosen(TENSORBOARD)) == []
    after = tracker_files.tensorboard(begun.path)
    assert after == expected(begun)
    assert after["seconds"][3] != before["seconds"][3]  # else the rows would be the old ones
    assert len(list((begun.path / "tensorboard").iterdir())) == 2


def test_tensorboard_begins_anew_where_a_run_is_resumed_from_its_start(begun):
    go_on_with(begun, chosen(TENSORBOARD), stop_after=2)
    killed(begun, 1)
    go_on_with(begun, chosen(TENSORBOARD))
    assert tracker_files.tensorboard(begun.path) == expected(begun)


def test_tensorboard_that_is_added_and_left_out_changes_no_bit(begun, data, tmp_path):
    go_on_with(begun, chosen(TENSORBOARD), stop_after=2)
    resume(begun)
    whole = run(tmp_path / "whole", small_recipe(data, steps=5), checkpoint_seconds=0, keep=9)
    assert record(begun) == record(whole)
    assert RunDirectory.open(begun.path).config().recipe == whole.config().recipe
