"""Trackers: what reaches them, that a resumed run continues its series, and that they cannot harm a run."""

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


class MemoryTracker:
    """A tracker that keeps its rows in memory, and fails as `fails_at` and `fails_to` say."""

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


def resume_with(directory, trackers, stop_after=None):
    """Resumes a run with trackers, to its end or to a step; returns the messages."""
    messages, steps_done = [], [-1]
    experiment = rebuild(directory, Alone(lambda: stop_after is not None and steps_done[-1] >= stop_after))
    with directory.locked(), Tracking(trackers, experiment.config, directory, messages.append) as tracking:

        def on_row(row):
            steps_done.append(row["step"])
            tracking.log(row)

        with contextlib.suppress(Interrupted):
            train(experiment, directory, Progress(on_row))
    return messages


@pytest.fixture
def begun(data, tmp_path):
    """Two steps of five, with a checkpoint after each."""
    return run(tmp_path / "run", small_recipe(data, steps=5), stop_after=1, checkpoint_seconds=0, keep=9)


def remove_checkpoints(directory, step):
    """Removes the checkpoints from a step on, as if the run had been killed before it wrote them."""
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
def test_rows_are_flattened(row, expected):
    assert flat(row) == expected


def test_a_tracker_gets_the_rows_of_the_record(begun):
    tracker = MemoryTracker()
    assert resume_with(begun, [tracker]) == []
    assert tracker.rows == [flat(row) for row in begun.rows()]
    assert tracker.steps == [0, 1, 2, 3, 4]  # also those before it was added
    assert tracker.ends == 1


def test_a_tracker_that_holds_rows_gets_those_after_them(begun):
    remove_checkpoints(begun, 2)
    tracker = MemoryTracker(holds=1)
    resume_with(begun, [tracker])
    assert tracker.steps == [1, 2, 3, 4]
    late = MemoryTracker(holds=9)  # it holds rows from after the checkpoint, which it gets again
    remove_checkpoints(begun, 2)
    begun.model.unlink()
    resume_with(begun, [late])
    assert late.steps == [1, 2, 3, 4]


def test_a_tracker_that_fails_is_left_out_and_the_run_continues(begun, data, tmp_path):
    failing, other = MemoryTracker(fails_at=3), MemoryTracker()
    messages = resume_with(begun, [failing, other])
    assert messages == ["kept is left out from step 3 on: the network is gone. The run goes on"]
    assert failing.steps == [0, 1, 2]
    assert other.steps == [0, 1, 2, 3, 4]
    undisturbed = run(tmp_path / "whole", small_recipe(data, steps=5), checkpoint_seconds=0, keep=9)
    assert record(begun) == record(undisturbed)


def test_a_tracker_that_fails_with_an_earlier_row_gives_one_message(begun):
    failing = MemoryTracker(fails_at=0)
    assert len(resume_with(begun, [failing])) == 1
    assert failing.rows == []


def test_a_tracker_that_cannot_end_gives_a_message(begun):
    assert resume_with(begun, [MemoryTracker(fails_to="end")]) == [
        "kept could not end: too late. The run's own record is complete"
    ]
    assert begun.model.exists()


def test_a_tracker_that_cannot_begin_stops_the_run_before_its_first_step(begun):
    before, first = files(begun.path), MemoryTracker()
    with pytest.raises(ValueError, match=r"--kept cannot begin \(no login\).*noiseless resume .*--untracked") as error:
        resume_with(begun, [first, MemoryTracker(fails_to="begin")])
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
def test_a_missing_package_is_refused_with_the_command_that_installs_it(monkeypatch, settings, module, extra):
    monkeypatch.setitem(sys.modules, module, None)  # as Python marks what cannot be imported
    with pytest.raises(ValueError, match=f"--{extra} needs a package") as error:
        chosen(settings)
    assert f'pip install "noiseless[{extra}]"' in str(error.value)
    assert "\n" not in str(error.value)


def test_without_flags_nothing_is_chosen():
    assert chosen(Settings()) == []


def expected_series(directory):
    """The record as series, in float32 as TensorBoard stores numbers."""
    points = [
        (name, int(row["step"]), float(np.float32(value)))
        for row in directory.rows()
        for name, value in flat(row).items()
        if name != "step"
    ]
    return tracker_files.gathered(points)


def test_tensorboard_holds_the_record(begun):
    assert resume_with(begun, chosen(TENSORBOARD)) == []
    assert tracker_files.tensorboard(begun.path) == expected_series(begun)
    assert set(tracker_files.tensorboard(begun.path)["train_loss"]) == {0, 1, 2, 3, 4}


def test_tensorboard_stores_the_config(begun):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    resume_with(begun, chosen(TENSORBOARD))
    events = EventAccumulator(str(begun.path / "tensorboard"))
    events.Reload()
    (text,) = events.Tensors("config/text_summary")
    assert Config.from_json(json.loads(text.tensor_proto.string_val[0])) == begun.config()


def test_tensorboard_purges_what_a_resumed_run_computes_again(begun):
    assert resume_with(begun, chosen(TENSORBOARD), stop_after=3) == []
    before = tracker_files.tensorboard(begun.path)
    assert set(before["train_loss"]) == {0, 1, 2, 3}
    remove_checkpoints(begun, 3)
    assert resume_with(begun, chosen(TENSORBOARD)) == []
    after = tracker_files.tensorboard(begun.path)
    assert after == expected_series(begun)
    assert after["seconds"][3] != before["seconds"][3]  # else the rows would be the old ones
    assert len(list((begun.path / "tensorboard").iterdir())) == 2


def test_tensorboard_begins_again_where_a_run_is_resumed_from_its_start(begun):
    resume_with(begun, chosen(TENSORBOARD), stop_after=2)
    remove_checkpoints(begun, 1)
    resume_with(begun, chosen(TENSORBOARD))
    assert tracker_files.tensorboard(begun.path) == expected_series(begun)


def test_tensorboard_that_is_added_and_left_out_changes_no_bit(begun, data, tmp_path):
    resume_with(begun, chosen(TENSORBOARD), stop_after=2)
    resume(begun)
    undisturbed = run(tmp_path / "whole", small_recipe(data, steps=5), checkpoint_seconds=0, keep=9)
    assert record(begun) == record(undisturbed)
    assert RunDirectory.open(begun.path).config().recipe == undisturbed.config().recipe
