"""What is killed, or stopped and resumed with other workers, ends in the result of what was never disturbed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time

import jobs
import kills
import pytest
from programs import Copy
from small_runs import call

from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory

TRAIN = ["fb-strong", "--images", "256", "--steps", "4", "--chunk", "2", "--threads", "1", "--snapshot-seconds", "0.1"]
TRAIN += ["--checkpoint-seconds", "0.5"]


def _start(*arguments, log):
    return jobs.Job([sys.executable, "-m", "noiseless", *arguments], log)


def _train(path, *arguments):
    return _start("train", *TRAIN, "--run-dir", str(path), *arguments, log=path.with_suffix(".log"))


def _result(path):
    directory = RunDirectory(path)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in directory.rows()]
    return checkpoint.digest(directory.state()), rows


def _has_snapshots(path):
    return (path / "snapshots").is_dir() and any((path / "snapshots").iterdir())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("kills") / "run"
    assert call("train", *TRAIN, "--run-dir", path).code == 0
    return _result(path)


def test_a_run_stopped_in_a_sweep_resumes_with_another_number_of_workers(undisturbed, tmp_path):
    path = tmp_path / "run"
    job = _train(path, "--workers", "2")
    job.until(lambda: _has_snapshots(path))
    job.process.send_signal(signal.SIGTERM)
    assert job.wait() == 130, job.log.read_text()[-3000:]
    assert f"noiseless resume {path}" in job.log.read_text()
    assert not (path / "model.safetensors").exists()
    assert call("resume", path, "--workers", 3).code == 0
    assert _result(path) == undisturbed


def _kill_often(path, kills, rng):
    """Kills random workers of a job, which torchrun starts again; returns the number of kills."""
    count = rng.choice([2, 3])
    output = path.with_suffix(".output")
    output.mkdir()
    program = Copy(output, "train", *TRAIN, "--run-dir", path, "--workers", count)
    kills_done = 0
    while kills_done < kills and program.poll() is None:
        workers = [process for process in jobs.copies() if process != program.pid]
        if len(workers) >= count and (path / "config.json").exists():
            time.sleep(rng.uniform(0, 1.5))
            victim = rng.choice(workers)
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            kills_done += 1
            while victim in jobs.copies() and program.poll() is None:
                time.sleep(0.05)
        time.sleep(0.05)
    program.communicate(timeout=240)
    return kills_done


def _finish(path, workers):
    while not (path / "model.safetensors").exists():  # more kills than torchrun's restarts
        assert call("resume", path, "--workers", workers).code == 0


def test_workers_killed_at_random_moments_change_no_bit(undisturbed, tmp_path):
    path, rng = tmp_path / "run", random.Random(5)
    assert _kill_often(path, 1, rng) == 1
    _finish(path, 2)
    assert _result(path) == undisturbed


@pytest.mark.soak
def test_twenty_five_kills_of_workers_change_no_bit(undisturbed, tmp_path):
    rng, kills_done, number = random.Random(7), 0, 0
    while kills_done < 25:
        path = tmp_path / f"run{number}"
        kills_done += _kill_often(path, 3, rng)
        _finish(path, rng.randint(1, 3))
        assert _result(path) == undisturbed
        number += 1
    print(f"{kills_done} kills in {number} runs")


def _campaign(size):
    ended = subprocess.run([sys.executable, kills.__file__, str(size), "27"], capture_output=True, text=True)
    passed, failed = re.fullmatch(r"(\d+) passed, (\d+) failed", ended.stdout.splitlines()[-1]).groups()
    assert (int(failed), ended.returncode) == (0, 0), ended.stdout
    return int(passed)


def test_a_few_kills_at_exact_places_change_nothing():
    assert _campaign(4) == 4


@pytest.mark.soak
def test_two_hundred_kills_change_nothing():
    passed = _campaign("all")
    print(f"{passed} passed, 0 failed")
    assert passed >= 200


@pytest.mark.soak
def test_a_worker_that_vanishes_ends_the_others_within_a_minute(tmp_path, monkeypatch):
    # without torchrun's agent, which would end them at once
    path, workers = tmp_path / "run", []
    for rank in range(2):
        for key, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29511}.items():
            monkeypatch.setenv(key, str(value))
        workers.append(_start("train", *TRAIN, "--run-dir", str(path), log=tmp_path / f"{rank}.log"))
    workers[0].until(lambda: _has_snapshots(path))
    workers[1].process.kill()
    workers[1].wait()
    start = time.monotonic()
    assert workers[0].wait(90) == 4
    assert time.monotonic() - start < 60
    assert "worker 1 of 2 has vanished" in workers[0].log.read_text()
