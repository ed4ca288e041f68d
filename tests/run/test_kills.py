"""Killed, told to stop and resumed with other numbers of workers, a run ends in the digest of the undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import jobs
import pytest

from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory

TRAIN = ["fb-strong", "--images", "256", "--steps", "4", "--chunk", "2", "--threads", "1", "--snapshot-seconds", "0.1"]
TRAIN += ["--checkpoint-seconds", "0.5"]


def _start(*arguments, log):
    return jobs.Job([sys.executable, "-m", "noiseless", *arguments], log)


def _train(place, *arguments):
    return _start("train", *TRAIN, "--run-dir", str(place), *arguments, log=place.with_suffix(".log"))


def _result(place):
    directory = RunDirectory(place)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in directory.rows()]
    return checkpoint.digest(directory.state()), rows


def _has_snapshots(place):
    return (place / "snapshots").is_dir() and any((place / "snapshots").iterdir())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = tmp_path_factory.mktemp("kills") / "run"
    assert _train(place).wait() == 0
    return _result(place)


def test_told_to_stop_in_a_sweep_and_resumed_with_another_number(undisturbed, tmp_path):
    place = tmp_path / "run"
    job = _train(place, "--workers", "2")
    job.until(lambda: _has_snapshots(place))
    job.process.send_signal(signal.SIGTERM)
    assert job.wait() == 130, job.log.read_text()[-3000:]
    assert f"noiseless resume {place}" in job.log.read_text()
    assert not (place / "model.safetensors").exists()
    resumed = _start("resume", str(place), "--workers", "3", log=tmp_path / "resumed.log")
    assert resumed.wait() == 0, resumed.log.read_text()[-3000:]
    assert _result(place) == undisturbed


def _kill_often(place, kills, choose):
    """Kills a random worker of a job again and again; torchrun starts them anew. Gives how often it did."""
    count = choose.choice([2, 3])
    job = _train(place, "--workers", str(count))
    done = 0
    while done < kills and job.process.poll() is None:
        workers = job.workers()
        if len(workers) >= count and (place / "config.json").exists():
            time.sleep(choose.uniform(0, 1.5))
            victim = choose.choice(workers)
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
            done += 1
            while victim in job.workers() and job.process.poll() is None:
                time.sleep(0.05)
        time.sleep(0.05)
    job.wait()
    return done


def _finish(place, log, workers):
    while not (place / "model.safetensors").exists():  # more kills than torchrun was to mend
        job = _start("resume", str(place), "--workers", str(workers), log=log)
        assert job.wait() == 0, log.read_text()[-3000:]


def test_workers_killed_at_random_moments(undisturbed, tmp_path):
    place, choose = tmp_path / "run", random.Random(5)
    assert _kill_often(place, 1, choose) == 1
    _finish(place, tmp_path / "resumed.log", 2)
    assert _result(place) == undisturbed


@pytest.mark.soak
def test_twenty_five_kills(undisturbed, tmp_path):
    choose, kills, number = random.Random(7), 0, 0
    while kills < 25:
        place = tmp_path / f"run{number}"
        kills += _kill_often(place, 3, choose)
        _finish(place, tmp_path / "resumed.log", choose.randint(1, 3))
        assert _result(place) == undisturbed
        number += 1
    print(f"{kills} kills in {number} runs")


@pytest.mark.soak
def test_a_worker_that_vanishes_ends_the_others_within_a_minute(tmp_path, monkeypatch):
    # without torchrun's agent, which would end them at once
    place, started = tmp_path / "run", []
    for rank in range(2):
        for key, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29511}.items():
            monkeypatch.setenv(key, str(value))
        started.append(_start("train", *TRAIN, "--run-dir", str(place), log=tmp_path / f"{rank}.log"))
    started[0].until(lambda: _has_snapshots(place))
    started[1].process.kill()
    started[1].wait()
    began = time.monotonic()
    assert started[0].wait(90) == 4
    assert time.monotonic() - began < 60
    assert "worker 1 of 2 has vanished" in started[0].log.read_text()
