"""`--tensorboard` and `--wandb` of train, resume and reproduce, with the real packages, offline."""

from __future__ import annotations

import json
import signal
import sys

import printed
import pytest
import tracker_files
from jobs import wait_until
from programs import Copy
from small_runs import call, npz, record, refused, run, small_recipe, words

from noiseless.files.directory import RunDirectory
from noiseless.run import trackers
from noiseless.run.trackers import flat

FLAGS = ("--model", "resnet2", "--block", "16", "--threads", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture
def offline(tmp_path):
    """Environment variables that keep wandb from the network and from the home directory."""
    places = {f"WANDB_{name}_DIR": str(tmp_path / "wandb-home") for name in ("CACHE", "CONFIG", "DATA")}
    return places | {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "COLUMNS": "200"}


def ended(process, seconds=200):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, (out, err)
    assert "Traceback" not in out + err
    return words(out)


def recorded(directory, name):
    return {row["step"]: row[name] for row in map(flat, directory.rows()) if name in row}


def test_bits_are_the_same_with_and_without_trackers(data, tmp_path, offline):
    train = ("train", "fb-practice", "--data", data, *FLAGS, "--steps", 3, "--run-dir")
    tracked, plain = RunDirectory(tmp_path / "with"), RunDirectory(tmp_path / "without")
    out = ended(Copy(tmp_path, *train, tracked.path, "--tensorboard", "--wandb", "a project", **offline))
    assert f"tensorboard: tensorboard --logdir {tracked.path}" in out
    assert f"wandb: wandb sync {tracked.path / 'wandb' / 'offline-run-'}" in out
    assert call(*train, plain.path).code == 0
    assert record(tracked) == record(plain)
    assert {path.name for path in tracked.path.iterdir()} - {path.name for path in plain.path.iterdir()} == {
        "tensorboard", "wandb", "wandb.json",
    }  # fmt: skip
    series = tracker_files.wandb(tracked.path)
    assert set(series) == {name for row in tracked.rows() for name in flat(row)} - {"step"}
    for name, values in series.items():
        assert values == recorded(tracked, name), name
    assert set(tracker_files.tensorboard(tracked.path)) == set(series)


def test_a_run_that_was_killed_continues_one_series(data, tmp_path, offline):
    directory = RunDirectory(tmp_path / "run")
    flags = ("--model", "resnet8", *FLAGS[2:], "--steps", 60)  # long enough to be killed before its end
    train = ("train", "fb", "--data", data, *flags, "--run-dir", directory.path)
    process = Copy(tmp_path, *train, "--tensorboard", "--wandb", "p", "--checkpoint-seconds", 0.5, **offline)
    wait_until(process, lambda: len(directory.rows()) > 20, process.communicate, 120)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not directory.model.exists()
    names = ("the project p of Weights & Biases", "--wandb p", "--untracked")
    refused("resume", directory.path, names=names)  # the config is a file, which sends nothing by itself
    ended(Copy(tmp_path, "resume", directory.path, "--wandb", "p", **offline))
    for series in (tracker_files.wandb(directory.path), tracker_files.tensorboard(directory.path)):
        assert sorted(series["train_loss"]) == list(range(60))
        assert set(series["test_accuracy"]) == set(recorded(directory, "test_accuracy"))
    assert tracker_files.wandb(directory.path)["train_loss"] == recorded(directory, "train_loss")


@pytest.mark.parametrize(
    ("flags", "module", "names"),
    [
        (("--tensorboard",), "torch.utils.tensorboard", ("--tensorboard", 'pip install "noiseless[tensorboard]"')),
        (("--wandb", "p"), "wandb", ("--wandb", 'pip install "noiseless[wandb]"')),
    ],
)
def test_a_missing_package_is_refused_before_anything_is_written(monkeypatch, data, tmp_path, flags, module, names):
    begun = run(tmp_path / "begun", small_recipe(data), stop_after=0)
    rows = begun.metrics.read_bytes()
    monkeypatch.setitem(sys.modules, module, None)
    run_dir = tmp_path / "run"
    refused("train", "fb", "--data", data, *FLAGS, "--run-dir", run_dir, *flags, names=names)
    refused("train", "fb", "--data", data, *FLAGS, "--run-dir", run_dir, *flags, "--workers", 2, names=names)
    refused("reproduce", "--data", data, "--rows", "fb", "--run-dir", run_dir, *flags, names=names)
    assert not run_dir.exists()
    refused("resume", begun.path, *flags, names=(*names, "--untracked"))
    assert begun.metrics.read_bytes() == rows


def test_an_empty_project_is_refused(data, tmp_path):
    project = ("--wandb", "")
    refused(
        "train", "fb", "--data", data, "--run-dir", tmp_path / "run", *project, names=("--wandb", "name of a project")
    )
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_begin_is_refused_with_what_to_do(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data), stop_after=0, tensorboard=True)
    (directory.path / "tensorboard").write_text("in the way")
    message = refused("resume", directory.path, names=("--tensorboard cannot begin", "--untracked", directory.path))
    assert "File exists" in message
    assert not directory.model.exists()
    answer = call("resume", directory.path, "--untracked")
    assert answer.code == 0
    assert directory.model.exists()
    assert (directory.path / "tensorboard").read_text() == "in the way"


def test_resume_uses_the_tracker_of_the_run_and_adds_another(data, tmp_path):
    tracked = run(tmp_path / "own", small_recipe(data), stop_after=0, tensorboard=True)
    added = run(tmp_path / "added", small_recipe(data), stop_after=0)
    assert call("resume", tracked.path).code == 0
    assert call("resume", added.path, "--tensorboard").code == 0
    for directory in (tracked, added):
        assert sorted(tracker_files.tensorboard(directory.path)["lr"]) == [0, 1, 2]


def test_only_the_first_worker_logs(data, tmp_path):
    train = ("train", "fb", "--data", data, *FLAGS, "--steps", 2, "--run-dir", tmp_path / "run")
    code, out = printed.launch(2, tmp_path / "log", *train, "--tensorboard")
    assert (code, out.count("tensorboard --logdir")) == (0, 1), out
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    assert sorted(tracker_files.tensorboard(tmp_path / "run")["lr"]) == [0, 1]


def test_workers_end_together_where_a_tracker_cannot_begin(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data), stop_after=0, tensorboard=True)
    (directory.path / "tensorboard").write_text("in the way")
    code, out = printed.launch(2, tmp_path / "log", "resume", directory.path)
    assert (code, out.count("--tensorboard cannot begin")) == (2, 1), out


def test_each_run_of_a_ladder_is_tracked(data, tmp_path):
    answer = call(
        "reproduce", "--form", "small", "--data", data, "--model", "resnet2", "--rows", "sgd", "fb", "--seeds", 1,
        "--jobs", 2, "--run-dir", tmp_path / "runs", "--tensorboard",
    )  # fmt: skip
    assert answer.code == 0, answer
    for name in ("sgd-seed0", "fb-seed0"):
        directory = RunDirectory(tmp_path / "runs" / name)
        assert directory.config().settings.tensorboard
        assert sorted(tracker_files.tensorboard(directory.path)["lr"]) == [row["step"] for row in directory.rows()]


@pytest.mark.parametrize("name", ["x/../../../outside", "*", "", 1, None])
def test_an_id_in_a_file_chooses_no_directory_to_remove(name, tmp_path):
    (tmp_path / "wandb.json").write_text(json.dumps({"project": "p", "name": name}))
    assert trackers._run_id(tmp_path / "wandb.json", "p", "new") == "new"
