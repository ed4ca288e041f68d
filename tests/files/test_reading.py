"""Reading a run while it is trained: rows that are new, cut, damaged or half written; which process holds it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys

import pytest
from small_runs import files, run, small_recipe

from noiseless.files.atomic import write_json
from noiseless.files.directory import RunDirectory
from noiseless.files.reading import Followed
from noiseless.plain import sealed
from noiseless.recipes.config import Config
from noiseless.recipes.recipe import Recipe


@pytest.fixture
def begun(tmp_path):
    """The directory of a run that has no row yet."""
    write_json(tmp_path / "config.json", sealed(Config(Recipe(name="tiny")).as_json()))
    return tmp_path


def write(path, *rows, end="\n"):
    with (path / "metrics.jsonl").open("a") as file:
        file.write("\n".join(json.dumps(row) for row in rows) + end)


def steps(followed):
    followed.look()
    return [row["step"] for row in followed.rows]


def test_a_real_run_is_read_as_its_directory_reads_it(practice):
    followed = Followed(practice.path)
    before = files(practice.path)
    followed.look()
    numbers = [{k: v for k, v in row.items() if not isinstance(v, (dict, list))} for row in practice.rows()]
    assert followed.rows == numbers
    assert followed.recipe == practice.config().recipe
    assert followed.ended
    assert followed.holder is None
    assert followed.damaged == 0
    assert files(practice.path) == before


def test_new_rows_are_read_at_each_look(begun):
    followed = Followed(begun)
    assert steps(followed) == []
    assert followed.written is None
    write(begun, {"step": 0})
    assert steps(followed) == [0]
    write(begun, {"step": 1}, {"step": 2})
    assert steps(followed) == [0, 1, 2]
    assert steps(followed) == [0, 1, 2]
    assert followed.written == (begun / "metrics.jsonl").stat().st_mtime


def test_half_a_line_is_read_once_it_is_complete(begun):
    followed = Followed(begun)
    write(begun, {"step": 0})
    line = json.dumps({"step": 1, "train_loss": 0.25, "note": "é"}, ensure_ascii=False).encode() + b"\n"
    for cut in range(1, len(line)):  # also within a character
        (begun / "metrics.jsonl").write_bytes(b'{"step": 0}\n' + line[:cut])
        assert steps(followed) == [0]
        with (begun / "metrics.jsonl").open("ab") as file:
            file.write(line[cut:])
        assert steps(followed) == [0, 1]
        assert followed.rows[-1] == {"step": 1, "train_loss": 0.25}
    assert followed.damaged == 0


def test_a_resumed_run_that_cuts_rows_is_read_again(begun):
    followed, directory = Followed(begun), RunDirectory(begun)
    write(begun, *({"step": step, "train_loss": 1.0} for step in range(6)))
    assert steps(followed) == [0, 1, 2, 3, 4, 5]
    directory.cut_rows(3)
    assert steps(followed) == [0, 1, 2]
    write(begun, {"step": 3, "train_loss": 2.0})
    directory.cut_rows(3)  # twice between two looks, and then as long as before
    write(begun, *({"step": step, "train_loss": 3.0} for step in (3, 4, 5)))
    assert steps(followed) == [0, 1, 2, 3, 4, 5]
    assert [row["train_loss"] for row in followed.rows] == [1.0] * 3 + [3.0] * 3
    (begun / "metrics.jsonl").unlink()
    assert steps(followed) == []


def test_a_step_that_is_written_again_replaces_the_rows_from_it_on(begun):
    followed = Followed(begun)
    write(begun, *({"step": step, "lr": 1} for step in range(4)), {"step": 2, "lr": 5})
    assert steps(followed) == [0, 1, 2]
    assert followed.rows[2]["lr"] == 5


@pytest.mark.parametrize("line", ["{}", "[1]", "nonsense", '{"step": "1"}', '{"step": true}', '{"step": 1.5}', "\x00"])
def test_damaged_lines_are_counted_and_left_out(begun, line):
    followed = Followed(begun)
    write(begun, {"step": 0})
    with (begun / "metrics.jsonl").open("a") as file:
        file.write(line + "\n\n")  # an empty line is not counted
    write(begun, {"step": 1})
    assert steps(followed) == [0, 1]
    assert followed.damaged == 1


def test_numbers_that_are_not_finite_are_none_and_others_are_left_out(begun):
    followed = Followed(begun)
    write(begun, {"step": 0, "a": math.nan, "b": math.inf, "c": None, "d": [1.0], "e": {"f": 1}, "g": "x", "h": True})
    with (begun / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "a": 1' + 400 * "0" + ', "b": 1e999}\n')
    followed.look()
    assert followed.rows == [{"step": 0, "a": None, "b": None, "c": None}, {"step": 1, "a": None, "b": None}]


def test_the_process_that_holds_a_run_is_known_without_locking_it(begun):
    followed, directory = Followed(begun), RunDirectory(begun)
    followed.look()
    assert followed.holder is None
    with directory.locked():
        followed.look()
        assert followed.holder == os.getpid()
    followed.look()
    assert followed.holder is None  # the file and the number in it are still there
    assert (begun / "lock").read_text() == str(os.getpid())


def test_another_process_that_holds_a_run_is_named_and_not_disturbed(begun):
    followed = Followed(begun)
    program = "import sys; from pathlib import Path; from noiseless.files.directory import RunDirectory\n"
    program += "with RunDirectory(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(begun)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        followed.look()
        assert followed.holder == other.pid
        other.stdin.close()
        assert other.wait() == 0
    followed.look()
    assert followed.holder is None


def test_a_directory_that_is_no_run_is_refused_as_by_run_directory(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ValueError, match=r"does not exist|has no config.json") as followed:
            Followed(path)
        with pytest.raises(ValueError, match="give the directory") as opened:
            RunDirectory.open(path)
        assert str(followed.value) == str(opened.value)


def test_a_run_that_vanishes_is_an_error(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb"))
    followed = Followed(directory.path)
    followed.look()
    shutil.rmtree(directory.path)
    with pytest.raises(ValueError, match="is gone"):
        followed.look()
