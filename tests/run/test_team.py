"""Jobs that the program starts by itself: signals and losses at any time end in one exit code and one sentence."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import time

import jobs
import printed
import pytest
from small_runs import call, copy

from noiseless import system
from noiseless.objective.workers import WorkerLostError
from noiseless.run import prepared, team

LOST = """
import os
import signal

def model(**options):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _train(data, path, *more):
    return [
        "train",
        "fb",
        "--data",
        data,
        "--steps",
        "1",
        "--block",
        "16",
        "--threads",
        "1",
        "--run-dir",
        str(path),
        *more,
    ]


def test_a_signal_before_the_workers_begin_ends_the_job(data, tmp_path, monkeypatch):
    launch = team.elastic_launch

    def told_before(config, function):
        os.kill(os.getpid(), signal.SIGTERM)
        return launch(config, function)

    monkeypatch.setattr(team, "elastic_launch", told_before)
    handlers = [signal.getsignal(number) for number in system.STOPS]
    assert call(*_train(data, tmp_path / "run", "--model", "resnet2"), "--workers", 2).code == 130
    assert not (tmp_path / "run").exists()
    assert [signal.getsignal(number) for number in system.STOPS] == handlers


def test_workers_that_are_lost_too_often_are_one_sentence(data, tmp_path, monkeypatch):
    (tmp_path / "lost.py").write_text(LOST)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = _train(data, tmp_path / "run", "--model", "lost:model")
    with pytest.raises(WorkerLostError, match="a worker was lost, after 0 restarts of the job; start the same command"):
        team.launch(2, arguments, restarts=0)
    launch = team.launch
    monkeypatch.setattr(team, "launch", lambda workers, arguments: launch(workers, arguments, restarts=1))
    answer = call(*arguments, "--workers", 2)
    assert answer.code == 4
    assert "error: a worker was lost, after 1 restarts of the job; start the same command again" in answer.err


def test_a_second_signal_ends_the_job_immediately(tmp_path):
    arguments = ["fb", "--steps", "9", "--chunk", "99", "--snapshot-seconds", "0.1", "--run-dir", str(tmp_path / "run")]
    job = jobs.Job([sys.executable, "-m", "noiseless", "train", *arguments, "--workers", "2"], tmp_path / "log")
    job.until(lambda: (tmp_path / "run" / "metrics.jsonl").exists())  # in a sweep of one chunk
    job.process.terminate()
    job.until(lambda: "repeat to stop immediately" in job.log.read_text())
    job.process.terminate()
    start = time.monotonic()
    assert job.wait() == 130
    assert time.monotonic() - start < 5
    assert job.workers() == []
    assert "interrupted" in job.log.read_text()


ALONE = """
import os
import sys
from noiseless.commands import job

rank, kind = os.environ["RANK"], sys.argv[1]
with job.joined() as workers:
    if rank == sys.argv[2]:
        raise {"user": ValueError, "disk": OSError, "bug": KeyError}[kind]("of one worker alone")
    workers.exchange("waits for it")
"""


@pytest.mark.parametrize(("kind", "rank", "code"), [("user", 0, 2), ("disk", 1, 2), ("bug", 1, 1)])
def test_an_error_of_one_worker_alone_ends_all_at_once(kind, rank, code, tmp_path, monkeypatch):
    (tmp_path / "alone.py").write_text(ALONE)
    monkeypatch.syspath_prepend(str(tmp_path))
    start = time.monotonic()
    answer, printed_text = printed.launch(3, tmp_path / "log", kind, rank, module="alone")
    assert time.monotonic() - start < 30  # below LOST_SECONDS
    assert answer == code
    if kind == "bug":
        assert printed_text.count("Traceback") == printed_text.count("KeyError: 'of one worker alone'") == 1
    else:
        assert printed_text == "error: of one worker alone\n"


TOGETHER = """
import os
import sys
import time
from pathlib import Path
from torch import distributed
from noiseless.commands import job

connected, connect = Path(sys.argv[1]), distributed.init_process_group

def slowly(*arguments, **options):
    connect(*arguments, **options)
    time.sleep(1)
    connected.touch()

if os.environ["RANK"] == "0":
    distributed.init_process_group = slowly
with job.joined():
    if not connected.exists():
        raise ValueError("joined before worker 0 was connected")
"""


def test_no_worker_leaves_while_another_connects(tmp_path, monkeypatch):
    (tmp_path / "together.py").write_text(TOGETHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    answer, printed_text = printed.launch(2, tmp_path / "log", str(tmp_path / "connected"), module="together")
    assert (answer, printed_text) == (0, "")


MISTAKEN = "error: unknown flag --stepz; did you mean --steps? noiseless train --help-all explains each flag\n"
APART = """
import os
import signal
import sys
from noiseless import cli

rank, kind, *words = sys.argv[1:]
if os.environ["RANK"] == rank:
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    cli.COMMANDS["train"] = cli.Command(lambda arguments: 1 / 0, "", "") if kind == "bug" else cli.COMMANDS["train"]
    words = ["train", *({"flag": ["--stepz", "3"], "run": ["fb"]}.get(kind) or words[1:])]
sys.exit(cli.main(words))
"""


@pytest.mark.parametrize(
    ("kind", "rank", "code", "message"),
    [
        (
            "flag",
            1,
            2,
            "error: unknown flag --stepz; did you mean --steps? noiseless train --help-all explains each flag\n",
        ),
        (
            "flag",
            0,
            2,
            "error: unknown flag --stepz; did you mean --steps? noiseless train --help-all explains each flag\n",
        ),
        ("run", 1, 2, "error: --run-dir is required in a job"),
        ("bug", 1, 1, "ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_before_a_worker_joins_ends_all_at_once(kind, rank, code, message, data, tmp_path, monkeypatch):
    (tmp_path / "apart.py").write_text(APART)
    monkeypatch.syspath_prepend(str(tmp_path))
    start = time.monotonic()
    words = _train(data, tmp_path / "run", "--model", "linear")
    answer, printed_text = printed.launch(2, tmp_path / "log", rank, kind, *words, module="apart")
    assert time.monotonic() - start < 50  # below the time in which a group waits for its workers
    assert answer == code
    assert printed_text.count(message) == 1, printed_text
    assert printed_text.count("error:") == (kind != "bug")
    assert not (tmp_path / "run").exists()


def test_a_worker_that_is_killed_before_it_joins_ends_the_others(data, tmp_path, monkeypatch):
    (tmp_path / "apart.py").write_text(APART)
    monkeypatch.syspath_prepend(str(tmp_path))
    start = time.monotonic()
    words = _train(data, tmp_path / "run", "--model", "linear")
    with pytest.raises(WorkerLostError):
        printed.launch(2, tmp_path / "log", 1, "killed", *words, module="apart", restarts=0)
    assert time.monotonic() - start < 30  # the agent would kill the others then


def test_a_file_in_place_of_a_directory_is_one_sentence_of_all_workers(practice, tmp_path):
    path = copy(practice, tmp_path / "run").path
    (path / "analysis").write_text("no directory")
    code, out = printed.launch(2, tmp_path / "log", "landscape", path, "--points", 3)
    assert code == 2
    (line,) = [line for line in out.splitlines() if "error" in line]
    assert line.startswith(f"error: cannot make {path}/analysis")


WAITING = """
import time
from pathlib import Path
from noiseless.run import prepared

prepared.take_signals()
Path({begun!r}).touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", system.STOPS)
def test_a_copy_of_the_prepared_process_ends_by_a_signal(tmp_path, number):
    begun = tmp_path / "begun"
    (tmp_path / "waiting.py").write_text(WAITING.format(begun=str(begun)))
    prepared.start()
    copy = multiprocessing.get_context("forkserver").Process(
        target=runpy.run_path, args=(str(tmp_path / "waiting.py"),)
    )
    copy.start()
    while not begun.exists():
        assert copy.is_alive()
        time.sleep(0.01)
    os.kill(copy.pid, number)
    copy.join(10)
    assert copy.exitcode == (1 if number == signal.SIGINT else -number)  # 1: KeyboardInterrupt
