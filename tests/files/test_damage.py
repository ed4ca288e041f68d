"""Damaged, lost and left-over files of a run: what is whole is used, what is not is named, nothing is lost silently."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from small_runs import call, copy, files, record, refused, resume, run, small_recipe

from noiseless.commands.execution import refuse_place
from noiseless.files import answers, checkpoint, heads
from noiseless.files.answers import Answer
from noiseless.files.atomic import OLD, write_json
from noiseless.files.directory import RunDirectory
from noiseless.files.parameters import write_parameters
from noiseless.plain import sealed, unsealed


@pytest.fixture
def unfinished(practice, tmp_path):
    """The finished run without its end: checkpoints after 0, 1, 2 and 3 of 3 steps."""
    directory = copy(practice, tmp_path / "run")
    directory.model.unlink()
    return directory


def lines(directory):
    return directory.metrics.read_bytes().splitlines(keepends=True)


def values(directory):
    return unsealed(json.loads((directory.path / "config.json").read_text()))


def damage(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\x00" + content[len(content) // 2 + 1 :])


@pytest.mark.parametrize("init", [False, True])
def test_a_run_killed_within_its_first_checkpoint_begins_anew(practice, data, tmp_path, init):
    recipe = small_recipe(data, init=str(practice.model) if init else None)
    expected = run(tmp_path / "whole", recipe, checkpoint_seconds=0, keep=9, evaluate_every=2)
    directory = copy(expected, tmp_path / "run")
    for path in (*directory.checkpoints.iterdir(), directory.metrics, directory.model):
        if path.name != "step-00000000.safetensors":
            path.unlink()
    assert directory.newest() is None
    (message,) = resume(directory)
    assert "begins anew, and nothing is lost" in message
    assert record(directory) == record(expected)


def test_a_first_checkpoint_that_is_damaged_under_a_record_is_no_new_beginning(unfinished):
    for path in unfinished.checkpoints.iterdir():
        if path.name != "step-00000000.safetensors":
            path.unlink()
    refused("resume", unfinished.path, names=("all checkpoints in", "step-00000000.json"))
    assert len(unfinished.rows()) == 3


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c["recipe"]["objective"].update(regime="full-catch"), "regime must be one of"),
        (lambda c: c["recipe"]["schedule"].update(steps="3"), "steps must be a whole number, not '3'"),
        (lambda c: c["recipe"]["schedule"].update(steps=10**400), "beyond what a float"),
        (lambda c: c["recipe"]["optimizer"].update(lr=-1.0), "--lr must be a positive number, not -1.0"),
        (lambda c: c["recipe"].update(seed=-1), "--seed"),
        (lambda c: c.update(recipe=[]), "lacks name"),
    ],
)
def test_a_config_with_a_value_that_no_run_can_have_is_refused(unfinished, change, problem):
    config = values(unfinished)
    change(config)
    write_json(unfinished.path / "config.json", sealed(config))
    before = files(unfinished.path)
    for command in ("resume", "watch"):
        refused(command, unfinished.path, names=("config.json", problem))
    assert files(unfinished.path) == before


def test_a_config_that_has_changed_or_has_a_key_twice_is_refused(unfinished):
    path = unfinished.path / "config.json"
    text = path.read_text()
    for changed in (text.replace('"seed": 0', '"seed": 1'), text.replace('"seed": 0,', '"seed": 0, "seed": 0,', 1)):
        assert changed != text
        path.write_text(changed)
        refused("resume", unfinished.path, names=("config.json", "restore it from a copy"))


def test_final_parameters_that_the_run_did_not_write_are_refused(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    state = {name: torch.zeros_like(tensor) for name, tensor in directory.state().items()}
    write_parameters(directory.model, state)  # with a seal that fits
    for command in ("resume", "digest"):
        refused(command, directory.path, names=("model.safetensors is not what this run wrote", "noiseless resume"))
    shutil.rmtree(directory.checkpoints)  # the record has the digest, too
    refused("digest", directory.path, names=("is not what this run wrote",))
    directory.metrics.unlink()
    refused("digest", directory.path, names=("cannot be checked", "restore"))


def test_the_end_of_a_run_is_known_from_the_record_or_the_last_checkpoint(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    end = directory.end()
    assert end is not None
    assert end.step == 3
    directory.metrics.write_bytes(b"".join(lines(directory)[:1]))
    assert directory.end() == end
    assert "lacks 2 of the 3 rows before step 3" in str(directory.lacking())
    answer = call("report", directory.path)
    assert answer.code == 0
    assert "lacks 2 of the 3 rows before step 3" in answer.err
    shutil.copy(practice.metrics, directory.metrics)
    shutil.rmtree(directory.checkpoints)
    assert directory.end() == end
    assert directory.lacking() is None


@pytest.mark.parametrize(
    ("number", "line"),
    [(0, b'{"step": 0, "pass\n'), (1, b'{"step": 7}\n'), (1, b'{"step": 0}\n'), (1, b"[1]\n"), (2, b'{"step": -3}\n')],
)
def test_a_damaged_row_is_set_aside_and_the_others_kept(unfinished, number, line):
    whole = lines(unfinished)
    kept = [row for position, row in enumerate(whole) if position != number]
    unfinished.metrics.write_bytes(b"".join(line if k == number else row for k, row in enumerate(whole)))
    assert [json.dumps(row).encode() + b"\n" for row in unfinished.rows()] == kept
    messages = " ".join(resume(unfinished))
    assert "lacks 1 of the 3 rows before step 3" in messages
    assert "set aside" in messages
    assert lines(unfinished) == kept
    assert unfinished.metrics.with_suffix(".damaged").read_bytes() == line


def test_the_record_is_on_the_disk_before_each_checkpoint(data, tmp_path, monkeypatch):
    order, fsync = [], os.fsync

    def noted(descriptor):
        order.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))  # noqa: PTH115, PTH119
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    run(tmp_path / "run", small_recipe(data, "fb", model="linear", steps=2), checkpoint_seconds=0)
    first = [name for name in order if name == "metrics.jsonl" or name.endswith(f".json.{os.getpid()}.tmp")]
    assert [name for name in first if "step" in name or "metrics" in name] == [
        ".step-00000000.json." + f"{os.getpid()}.tmp",
        "metrics.jsonl", ".step-00000001.json." + f"{os.getpid()}.tmp",
        "metrics.jsonl", ".step-00000002.json." + f"{os.getpid()}.tmp",
    ]  # fmt: skip


def test_a_damaged_newest_checkpoint_is_said_by_all_that_read_the_one_before(unfinished, tmp_path):
    damage(unfinished.checkpoints / "step-00000003.safetensors")
    for command in (("digest", unfinished.path), ("evaluate", unfinished.path), ("weights", unfinished.path)):
        answer = call(*command)
        assert answer.code == 0, answer
        assert "step-00000003.json is damaged" in answer.err
        assert "the one of step 2 is used" in answer.err


def test_damaged_checkpoints_do_not_count_as_kept(tmp_path):
    def save(step, keep):
        checkpoint.save(tmp_path, step, {"x": torch.tensor([float(step)])}, keep)

    for step in (2, 3, 9):
        save(step, 9)
    damage(tmp_path / "step-00000009.safetensors")
    save(4, 1)  # the run goes on from step 3
    assert heads.steps(tmp_path) == [4, 9]
    save(5, 2)
    damage(tmp_path / "step-00000005.safetensors")
    save(6, 2)
    assert heads.steps(tmp_path) == [4, 6, 9]
    assert checkpoint.newest(tmp_path).step == 6
    save(9, 1)
    assert heads.steps(tmp_path) == [9]


@pytest.mark.parametrize("kind", ["directory", "link", "pipe"])
def test_a_snapshot_that_cannot_be_read_is_set_aside(practice, unfinished, capfd, kind):
    for path in unfinished.checkpoints.glob("step-00000003.*"):
        path.unlink()
    folder = unfinished.path / "snapshots"
    folder.mkdir(exist_ok=True)
    for step in (1, 2):  # of a step that is done, and of the next one
        path = folder / f"step-{step:08d}-update-000000-sweep-000001-worker-0-abc-0.partial"
        if kind == "directory":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(folder / "gone")
        else:
            os.mkfifo(path)
    resume(unfinished)
    assert record(unfinished) == record(practice)
    assert not list(folder.glob("*.partial"))
    if kind != "pipe":
        assert "cannot be read" in capfd.readouterr().err


def test_temporary_files_of_killed_writes_are_cleared_by_the_next_holder_of_the_lock(practice, unfinished):
    old = [
        unfinished.checkpoints / ".step-00000002.safetensors.99999999.tmp",
        unfinished.path / ".metrics.jsonl.1.tmp",  # of a process that lives, but does not hold the lock
        unfinished.path / ".predictions.npz.99999999.tmp",
        unfinished.path / ".report.html.99999999.tmp",
    ]
    young, strange = unfinished.path / ".report.html.99999998.tmp", unfinished.path / ".notes.tmp"
    for path in (*old, young, strange):
        path.write_text("x")
    os.utime(old[-1], (0, young.stat().st_mtime - 2 * OLD))
    with unfinished.locked():
        assert not any(path.exists() for path in old)
        assert young.exists()
        assert strange.exists()


@pytest.mark.parametrize(
    "try_place", [lambda run: answers.try_place(run), lambda run: refuse_place(run.path / "analysis")]
)
def test_old_temporary_files_of_answers_and_tables_are_cleared_before_new_ones(try_place, run_copy):
    place = answers.folder(run_copy)
    old, young = (place / f".table.csv.9999999{digit}.tmp" for digit in (8, 9))
    for path in (old, young):
        path.write_text("x")
    os.utime(old, (0, young.stat().st_mtime - 2 * OLD))
    try_place(run_copy)
    assert list(place.iterdir()) == [young]


def test_answers_are_tried_before_the_work_and_a_damaged_one_costs_itself(run_copy):
    answers.write(run_copy, Answer("noise", "a", {"step": 1, "x": [0.1]}))
    path = answers.write(run_copy, Answer("noise", "b", {"step": 2}))
    folder = files(run_copy.path / "analysis")
    for content in (b"{}", b"[" * 5000, path.read_bytes().replace(b"2", b"3"), b'{"step": 1e999}'):
        path.write_bytes(content)
        assert [answer.name for answer in answers.read(run_copy)] == ["a"]
    assert len(folder) == 2
    shutil.rmtree(run_copy.path / "analysis")
    (run_copy.path / "analysis").write_text("a file where the folder would be")
    before = call("sharpness", run_copy.path)
    assert before.code == 2
    assert "analysis" in before.err
    assert "passes" not in before.out  # nothing was computed


def test_a_run_that_was_stopped_before_its_report_gets_it(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    assert not (directory.path / "report.html").exists()
    answer = call("resume", directory.path)
    assert answer.code == 0, answer
    assert "has ended" in answer.out
    assert (directory.path / "report.html").exists()


def test_other_versions_than_recorded_are_said(unfinished):
    path = unfinished.path / "environment.json"
    recorded = json.loads(path.read_text())
    recorded["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(recorded))
    assert f"torch 1.0 then, {torch.__version__.split('+')[0]}" in call("resume", unfinished.path).out


def test_a_run_directory_with_a_space_is_quoted_in_what_to_do_next(practice, tmp_path):
    directory = copy(practice, tmp_path / "a run")
    assert f"noiseless evaluate '{directory.path}'" in call("resume", directory.path).out


@pytest.mark.parametrize("name", ["../../../x", "a/b"])
def test_a_name_does_not_lead_out_of_the_directory_of_runs(data, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused("train", "fb", "--data", data, "--block", 16, "--steps", 1, "--name", name, names=("--name", "--run-dir"))
    assert not list(tmp_path.iterdir())


def test_an_import_killed_within_its_checkpoint_begins_anew(practice, data, tmp_path):
    config = practice.config()
    directory = copy(practice, tmp_path / "run")
    for name in ("config.json", "metrics.jsonl", "predictions.npz", "report.html"):
        (directory.path / name).unlink(missing_ok=True)
    assert {path.name for path in directory.path.iterdir()} >= {"lock", "environment.json", "checkpoints"}
    with directory.created(config, {}):
        assert not list(directory.checkpoints.iterdir())
        assert not directory.model.exists()


def test_a_directory_with_a_record_and_no_config_is_not_taken_for_an_unfinished_beginning(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    (directory.path / "config.json").unlink()
    before = files(directory.path)
    with pytest.raises(ValueError, match="is not an empty directory"), directory.created(practice.config(), {}):
        pass
    assert files(directory.path) == before


def test_a_directory_that_utf_8_cannot_name_is_refused_before_the_work(data, tmp_path, monkeypatch):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(place)  # noqa: PTH102
    monkeypatch.chdir(place)
    arguments = ("train", "fb", "--data", data, "--block", 16, "--steps", 1, "--threads", 1, "--run-dir", "run")
    refused(*arguments, names=("--run-dir must be text in UTF-8",))
    assert os.listdir(place) == []  # noqa: PTH208


def test_an_ended_run_with_an_average_has_its_digest_too(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb", model="linear", ema=0.5))
    assert set(directory.rows()[-1]["final"]) == {"model", "average"}
    write_parameters(directory.average, directory.state())
    with pytest.raises(ValueError, match=r"average.safetensors is not what this run wrote"):
        RunDirectory(directory.path).state(average=True)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda state: state.pop("passes"), "passes"),
        (lambda state: state.update(transforms=[1]), "transforms"),
        (lambda state: state.update(questions={"vectors": None}), "questions"),
        (lambda state: state.update(perfect=-1, passes="x"), "passes, perfect"),
    ],
)
def test_a_state_with_other_parts_counts_as_damaged_though_its_digests_fit(practice, unfinished, change, part):
    step, state = checkpoint.read(unfinished.checkpoints / "step-00000002.json")
    unfinished.checkpoints.joinpath("step-00000003.json").unlink()
    change(state)
    checkpoint.save(unfinished.checkpoints, step, state, keep=9)
    assert f"its {part} is missing or of another type" in " ".join(resume(unfinished))
    assert record(unfinished)[0] == record(practice)[0]


def test_the_state_of_another_optimizer_is_refused_in_a_sentence(unfinished):
    step, state = checkpoint.read(unfinished.checkpoints / "step-00000002.json")
    for path in unfinished.checkpoints.glob("step-00000003.*"):
        path.unlink()
    for wrong in ({"state": {}}, state["optimizer"] | {"state": {0: {"momentum_buffer": torch.ones(7)}}}):
        checkpoint.save(unfinished.checkpoints, step, state | {"optimizer": wrong}, keep=9)
        refused("resume", unfinished.path, names=("does not hold a state of this run's model and optimizer",))


def test_a_link_to_itself_is_no_traceback(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    for name in ("predictions.npz", "environment.json", "checkpoints"):
        path = directory.path / name
        path.rename(tmp_path / name)
        path.symlink_to(name)
        for command in ("digest", "watch", "report", "evaluate"):
            answer = call(command, directory.path, *(["--once"] if command == "watch" else []))
            assert answer.code in (0, 2), answer
        path.unlink()
        (tmp_path / name).rename(path)


def test_an_export_names_what_the_environment_lacks(practice, tmp_path):
    directory = copy(practice, tmp_path / "run")
    path = directory.path / "environment.json"
    whole = json.loads(path.read_text())
    for values, problem in (
        ({name: part for name, part in whole.items() if name != "packages"}, "it lacks packages"),
        (whole | {"command": ["x", 1]}, "command[1] must be text, not 1"),
        (whole | {"imported": {"step": "3"}}, "imported lacks file, sha256"),
    ):
        path.write_text(json.dumps(values))
        refused("export", directory.path, tmp_path / "exported", names=(path, problem))
