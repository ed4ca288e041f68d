"""The probe of a run's storage, and copies of runs. tests/clusters/on_object_store.py does the same on a real mount."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from small_runs import call, refused

from noiseless.files import runcopy
from noiseless.files.directory import RunDirectory
from noiseless.files.storage import refuse_unfit

TRAIN = ("train", "fb", "--model", "resnet2", "--steps", 3, "--block", 16, "--threads", 1, "--checkpoint-seconds", 0)


def _failing(number):
    def call(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return call


def _copying_rename(path, target):
    """As a mount that renames by copying, and keeps the old name."""
    Path(target).write_bytes(path.read_bytes())


FAULTS = {
    "lock files (Function not implemented)": (fcntl, "flock", _failing(errno.ENOSYS)),
    "lock files (two holders at the same time)": (fcntl, "flock", lambda file, operation: None),
    "flush a file (Operation not supported)": (os, "fsync", _failing(errno.ENOTSUP)),
    "rename over an existing file (Input/output error)": (Path, "replace", _failing(errno.EIO)),
    "rename over an existing file (the old file is still there)": (Path, "replace", _copying_rename),
}


def test_a_place_that_can_do_everything_is_taken_and_left_as_it_was(tmp_path):
    refuse_unfit(tmp_path / "deep" / "run")
    refuse_unfit(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", FAULTS)
def test_what_a_place_lacks_is_named_with_the_remedy(lacking, tmp_path, monkeypatch):
    monkeypatch.setattr(*FAULTS[lacking])
    with pytest.raises(ValueError, match="the storage of") as refusal:
        refuse_unfit(tmp_path / "run")
    assert f" cannot {lacking}, as mounts of object stores" in str(refusal.value)
    assert f"add --copy-to {tmp_path / 'run'} to have" in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_not_taken_for_an_object_store(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", _failing(errno.ENOSPC))
    refuse_unfit(tmp_path)


def test_a_run_is_refused_before_anything_is_made(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", _failing(errno.ENOSYS))
    refused(*TRAIN, "--data", data, "--run-dir", tmp_path / "run", names=("rename over an existing file", "--copy-to"))
    assert not list(tmp_path.iterdir())


def test_a_ladder_is_refused_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", _failing(errno.ENOTSUP))
    message = refused("reproduce", "--quick", "--run-dir", tmp_path / "runs", names=("a shared file system",))
    assert "--copy-to" not in message
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def copied(data, tmp_path_factory):
    """A run with a copy, which was made while it ran."""
    folder = tmp_path_factory.mktemp("copied")
    answer = call(*TRAIN, "--data", data, "--run-dir", folder / "run", "--copy-to", folder / "bucket" / "run")
    assert answer.code == 0, answer
    return folder


def _files(path):
    """The contents of a run's files by their name, without the lock."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != "lock"}


def test_a_copy_has_what_the_run_has(copied):
    run, copy = copied / "run", copied / "bucket" / "run"
    assert _files(copy) == _files(run)
    assert sorted(path.name for path in (copy / "checkpoints").glob("*.json")) == [
        "step-00000002.json",
        "step-00000003.json",
    ]  # older ones are removed in both
    assert call("digest", copy).out == call("digest", run).out


def test_a_copy_is_a_run_that_goes_on(data, copied, tmp_path):
    """As after the loss of the local disk: the copy of an earlier moment is copied back."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").mkdir()
    for name, content in _files(copied / "bucket" / "run").items():
        if "step-00000003" not in name and not name.startswith(("model", "predictions", "report")):
            (run / name).write_bytes(content)
    assert call("resume", run, "--copy-to", tmp_path / "copy").code == 0
    assert call("digest", tmp_path / "copy").out == call("digest", copied / "run").out


def test_a_copy_that_fails_is_told_and_ends_nothing(copied, tmp_path):
    told: list[str] = []
    target = tmp_path / "copy"
    target.mkdir()
    (target / "metrics.jsonl").mkdir()  # in the way
    copy = runcopy.RunCopy(RunDirectory(copied / "run"), target, told.append)
    copy.update()
    copy.update()
    assert len(told) == 2
    assert f"lacks the newest files (Is a directory: {target}/metrics.jsonl). The run goes on" in told[0]
    (target / "metrics.jsonl").rmdir()
    copy.update()
    assert told[2:] == [f"the copy in {target} is complete again"]
    copy.update()
    assert len(told) == 3
    assert _files(target) == _files(copied / "run")


def test_a_run_whose_copy_fails_ends_well(data, tmp_path):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "copy"
    answer = call(*TRAIN, "--data", data, "--run-dir", tmp_path / "run", "--copy-to", target)
    assert answer.code == 0, answer
    assert f"the copy in {target} lacks the newest files (Not a directory: {target}" in answer.out
    assert call("digest", tmp_path / "run").code == 0


def test_a_finished_run_is_copied_by_resume(copied, tmp_path):
    answer = call("resume", copied / "run", "--copy-to", tmp_path / "copy")
    assert answer.code == 0, answer
    assert _files(tmp_path / "copy") == _files(copied / "run")


@pytest.mark.parametrize("inner", ["run", "run/copy", "."])
def test_run_and_copy_do_not_hold_each_other(data, tmp_path, inner):
    names = (f"--copy-to {tmp_path / inner}", "must not hold each other")
    refused(*TRAIN, "--data", data, "--run-dir", tmp_path / "run", "--copy-to", tmp_path / inner, names=names)


def test_a_target_with_something_else_in_it_is_refused(data, copied, tmp_path):
    line = (*TRAIN, "--data", data, "--run-dir", tmp_path / "run", "--copy-to")
    (tmp_path / "file").write_text("")
    refused(*line, tmp_path / "file", names=("is not a directory",))
    refused(*line, copied, names=("holds other files than a run's",))
    copy = copied / "bucket" / "run"
    back = f"copy it back (cp -r {copy} {tmp_path / 'run'}) and go on with noiseless resume {tmp_path / 'run'}"
    refused(*line, copy, names=(back, f"--copy-to {copy}"))
    assert not (tmp_path / "run").exists()
    other = tmp_path / "other"
    assert call(*TRAIN, "--data", data, "--seed", 1, "--run-dir", other).code == 0
    refused("resume", other, "--copy-to", copy, names=(f"holds another run than {other}",))
