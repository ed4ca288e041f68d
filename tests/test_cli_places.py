"""Run directories: ones that are in use, foreign, unwritable or full are refused with a remedy, and lose nothing."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import small_runs
from small_runs import call, copy, files, npz, record, refused, resume, run

from noiseless.files.directory import RunDirectory
from noiseless.plain import sealed, unsealed
from noiseless.recipes.flags import flag_value

small_recipe = partial(small_runs.small_recipe, model="resnet8")  # whose checkpoints fill a disk of 1 MiB


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run."""
    return run(tmp_path_factory.mktemp("whole") / "run", small_recipe(data))


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory):
    """The same run, stopped after its second step; tests work on copies."""
    return run(tmp_path_factory.mktemp("stopped") / "run", small_recipe(data), stop_after=1)


@pytest.fixture
def train(data):
    """The command that trains the finished run, in another directory."""
    recipe = small_recipe(data)
    flags = [
        part
        for name in ("data", "model", "steps", "block", "warmup", "horizon")
        for part in (f"--{name}", flag_value(recipe, name))
    ]
    start = ("train", "fb-practice", "--form", "small", *flags, "--threads", 1)
    return lambda path, *more: (*start, "--run-dir", path, *more)


def test_a_directory_with_a_run_of_the_same_config_is_refused_with_the_resume_command(train, stopped):
    before = files(stopped.path)
    refused(*train(stopped.path), names=(stopped.path, "same config", f"noiseless resume {stopped.path}"))
    assert files(stopped.path) == before


def test_a_run_of_another_config_is_left_alone(train, stopped):
    before = files(stopped.path)
    message = refused(*train(stopped.path, "--lr", 0.1), names=(stopped.path, "another config", "--run-dir"))
    assert "resume" not in message
    assert files(stopped.path) == before


def test_a_directory_with_other_things_in_it_is_left_alone(train, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    stamp = tmp_path.stat().st_mtime_ns
    refused(*train(tmp_path), names=(tmp_path, "not an empty directory", "--run-dir"))
    assert files(tmp_path) == {"thesis.tex": b"years of work"}
    assert tmp_path.stat().st_mtime_ns == stamp


def test_an_empty_directory_may_be_used(train, tmp_path, finished):
    (tmp_path / "run").mkdir()
    assert call(*train(tmp_path / "run")).code == 0
    assert record(RunDirectory(tmp_path / "run")) == record(finished)


def test_a_directory_left_by_an_interrupted_start_may_be_used(train, tmp_path, finished):
    """After a kill or a full disk before config.json is written there is no run yet, and nothing can be lost."""
    path = tmp_path / "run"
    (path / "checkpoints").mkdir(parents=True)
    (path / "lock").write_text("1")
    (path / "environment.json").write_text("{}")
    (path / ".config.json.1.tmp").write_text("{")
    refused("resume", path, names=(path, "is not a run", f"noiseless train --run-dir {path}"))
    assert call(*train(path)).code == 0
    assert record(RunDirectory(path)) == record(finished)


def test_a_foreign_environment_json_is_left_alone(train, tmp_path):
    (tmp_path / "environment.json").write_text("{}")
    refused(*train(tmp_path), names=(tmp_path, "not an empty directory", "--run-dir"))


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_with_the_name_of_the_directory_is_left_alone(train, tmp_path, below):
    file = tmp_path / "notes"
    file.write_text("mine")
    refused(*train(file / below), names=(file, "--run-dir"))
    assert file.read_text() == "mine"


@pytest.mark.parametrize("command", ["resume", "evaluate", "digest", "report"])
def test_a_path_that_is_no_run_is_named(command, tmp_path):
    refused(command, tmp_path, names=(tmp_path, "is not a run", "noiseless train"))
    refused(command, tmp_path / "nowhere", names=(tmp_path / "nowhere", "does not exist"))
    (tmp_path / "file").write_text("")
    refused(command, tmp_path / "file", names=(tmp_path / "file", "is not a run"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


HOLDER = """
import sys, pathlib
from noiseless.files.directory import RunDirectory
with RunDirectory(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Starts other processes that hold a run until they are killed."""
    processes = []

    def hold(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def test_a_run_that_another_process_holds_is_refused_with_that_process(train, stopped, tmp_path, holder, finished):
    directory = copy(stopped, tmp_path / "run")
    process = holder(directory.path)
    before = files(directory.path)
    names = (directory.path, f"in use by process {process.pid}", "--run-dir")
    refused("resume", directory.path, names=names)
    (tmp_path / "new").mkdir()
    other = holder(tmp_path / "new")
    refused(*train(tmp_path / "new"), names=(tmp_path / "new", f"in use by process {other.pid}", "--run-dir"))
    assert files(directory.path) == before
    process.kill()  # the lock goes with the process, however it ends
    process.wait()
    resume(directory)
    assert record(directory) == record(finished)


def test_a_run_that_is_held_can_be_read(stopped, tmp_path):
    directory = copy(stopped, tmp_path / "run")
    with directory.locked():
        assert call("evaluate", directory.path).code == 0
        assert call("digest", directory.path).code == 0


@pytest.mark.parametrize("name", ["", ".", "..", "../../../x", "/x", "a/b", "x" * 101])
def test_a_name_that_is_no_part_of_a_path_needs_a_run_dir(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    refused("train", "fb", "--name", name, names=("--name must be at most 100 characters without a slash", "--run-dir"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/proc/noiseless-run", "/sys/noiseless-run"])
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="not Linux")
def test_a_directory_without_write_permission_is_refused_with_the_remedy(train, path):
    refused(*train(path), names=(path, "--run-dir"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_refused_with_the_remedy(train, tmp_path):
    tmp_path.chmod(0o555)
    refused(*train(tmp_path / "run"), names=(tmp_path, "--run-dir"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "file",
    [
        "metrics.jsonl",
        "checkpoints/step-00000003.safetensors",
        "checkpoints/step-00000003.json",
        "predictions.npz",
        "model.safetensors",
        "report.html",
    ],
)
def test_a_full_disk_loses_nothing(stopped, finished, tmp_path, file, monkeypatch):
    """Each file is first written under a temporary name: /dev/full in its place makes the write fail with ENOSPC."""
    directory = copy(stopped, tmp_path / "run")
    target = directory.path / file
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    opened = Path.open

    def open_path(path, mode="r", *arguments, **named):
        full = path == temporary and mode == "xb"
        return opened(Path("/dev/full"), "wb") if full else opened(path, mode, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_path)
        message = refused("resume", directory.path, names=("No space left on device", directory.path))
    assert "free" in message
    assert not temporary.exists()
    if file == "report.html":
        assert call("report", directory.path).code == 0  # the run itself had ended
    else:
        assert f"noiseless resume {directory.path}" in message
        assert not directory.model.exists()
        resume(directory)
    assert record(directory) == record(finished)


def test_a_small_disk_that_fills_up_loses_nothing(train, finished, tmp_path):
    """A real file system of 1 MiB: the third checkpoint does not fit, with 0.6 MB each."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        refused(
            *train(disk / "run", "--checkpoint-seconds", 0, "--keep", 9),
            names=("No space left on device", f"noiseless resume {disk / 'run'}"),
        )
        moved = copy(RunDirectory(disk / "run"), tmp_path / "roomy")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    resume(moved)
    assert record(moved) == record(finished)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"recipe": {"lr": 1}, "settings": {}}', "\xff"])
def test_a_config_that_cannot_be_read_is_named(stopped, tmp_path, content):
    directory = copy(stopped, tmp_path / "run")
    (directory.path / "config.json").write_text(content, encoding="latin-1")
    for command in ("resume", "evaluate", "report"):
        refused(command, directory.path, names=(directory.path / "config.json",))


def test_the_config_of_another_version_is_refused_with_what_differs(stopped, tmp_path):
    directory = copy(stopped, tmp_path / "run")
    file = directory.path / "config.json"
    config = unsealed(json.loads(file.read_text()))
    for name in ("agc", "clip"):
        del config["recipe"]["transforms"][name]
    file.write_text(json.dumps(sealed(config)))
    remedy = ("another version", "transforms lacks agc, clip)", "environment.json", "new run")
    refused("resume", directory.path, names=(file, *remedy))
    config["recipe"]["transforms"] |= {"agc": None, "clip": None}
    config["recipe"]["warp"] = 1
    file.write_text(json.dumps(sealed(config)))
    refused("evaluate", directory.path, names=(file, "recipe has warp, which is not known"))
    file.write_text(json.dumps(sealed({"recipe": {}, "settings": {}})))
    refused("report", directory.path, names=(file, "recipe lacks name, seed, data, model and"))


@pytest.mark.parametrize("content", [None, "", "{}", "[]"])
def test_an_environment_that_cannot_be_read_is_named(stopped, tmp_path, content):
    directory = copy(stopped, tmp_path / "run")
    file = directory.path / "environment.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    refused("resume", directory.path, names=(file,))


@pytest.mark.parametrize("content", [b"", b"junk" * 100, None])
def test_final_parameters_that_cannot_be_read_are_named(finished, stopped, tmp_path, content):
    directory = copy(finished, tmp_path / "run")
    if content is None:  # those of another model
        other = run(tmp_path / "other", small_recipe(finished.config().recipe.data.name, "fb", norm="none", steps=1))
        content = other.model.read_bytes()
    directory.model.write_bytes(content)
    refused("evaluate", directory.path, names=(directory.model,))


def test_metrics_that_are_no_rows_are_named(stopped, finished, tmp_path):
    directory = copy(stopped, tmp_path / "run")
    directory.metrics.write_text("3\n[]\n")
    refused("report", directory.path, names=(directory.metrics, "2 damaged lines"))
    answer = call("resume", directory.path)
    assert answer.code == 0
    assert f"{directory.metrics} has 2 damaged lines and lacks 2 of the 2 rows before step 2" in answer.out
    assert directory.state().keys() == finished.state().keys()


def test_a_run_without_a_step_has_nothing_to_report(stopped, tmp_path):
    directory = copy(stopped, tmp_path / "run")
    directory.metrics.write_text("")
    refused("report", directory.path, names=(directory.path, "no finished step"))
