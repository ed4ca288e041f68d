"""A real process that is interrupted or killed leaves a run that resumes to the same bits."""

import signal
import subprocess
import sys
import time

import pytest
from archives import Server
from jobs import wait_until
from programs import Copy
from small_runs import record, resume, small_recipe
from small_runs import run as run_here

from noiseless.commands.interrupt import stop_signals
from noiseless.files.directory import RunDirectory

STEPS = 14  # a process of seconds: it is not over before it gets a signal
FLAGS = ("--model", "resnet8", "--steps", STEPS, "--block", 16, "--warmup", 1, "--horizon", 4, "--threads", 1)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """Digest and rows of the run without an interrupt."""
    recipe = small_recipe(data, model="resnet8", steps=STEPS)
    return record(run_here(tmp_path_factory.mktemp("undisturbed") / "run", recipe))


def begin(data, path, *flags):
    """Starts the run in another process and waits until it has done a few steps."""
    train = ("train", "fb-practice", "--form", "small", "--data", data, *FLAGS)
    program = Copy(path.parent, *train, "--run-dir", path, *flags)
    directory = RunDirectory(path)
    wait_until(program, lambda: len(directory.rows()) >= 3, program.communicate)
    return program, directory


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_writes_a_checkpoint_and_prints_how_to_resume(number, data, tmp_path, undisturbed):
    program, directory = begin(data, tmp_path / "run")
    program.send_signal(number)
    out, err = program.communicate(timeout=60)
    assert program.returncode == 130, (out, err)
    assert "Traceback" not in out + err
    assert f"noiseless resume {directory.path}" in out + err
    rows = directory.rows()
    assert 3 <= len(rows) < STEPS
    assert (directory.checkpoints / f"step-{len(rows):08d}.json").exists()
    assert not directory.model.exists()
    resume(directory)
    assert record(directory) == undisturbed


@pytest.mark.parametrize("delay", [0.0, 0.11])
def test_a_killed_run_resumes_to_the_same_bits(delay, data, tmp_path, undisturbed):
    # a checkpoint after every step: the kill may strike in the middle of writing one
    program, directory = begin(data, tmp_path / "run", "--checkpoint-seconds", 0)
    time.sleep(delay)
    program.kill()
    program.communicate(timeout=60)
    assert program.returncode == -signal.SIGKILL
    assert not directory.model.exists()
    resume(directory)
    assert record(directory) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_download_ends_the_program_at_once(number, tmp_path):
    part = tmp_path / "data" / "cifar-10-python.tar.gz.part"
    with Server({"cifar-10-python.tar.gz": bytes(5000)}, length=False, hang=60, hang_after=5000) as server:
        environment = {"NOISELESS_MIRROR": server.url, "NOISELESS_DATA": str(part.parent)}
        program = Copy(tmp_path, "train", "fb", "--data", "cifar10", "--run-dir", tmp_path / "run", **environment)
        wait_until(program, lambda: part.exists() and part.stat().st_size >= 5000, program.communicate)
        program.send_signal(number)
        out, err = program.communicate(timeout=20)  # the server is silent for 60 seconds
    assert program.returncode == 130, (out, err)
    assert out == "recipe fb in its paper form, with the given flags\n"
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err
    assert part.stat().st_size == 5000
    assert not (tmp_path / "run").exists()


def test_a_second_interrupt_ends_the_program_at_once():
    """In another process, which the second signal ends."""
    program = subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"ready\n"
    program.send_signal(signal.SIGINT)
    assert program.stdout.readline() == b"asked to stop\n"
    program.send_signal(signal.SIGTERM)
    out, err = program.communicate(timeout=60)
    assert (out, program.returncode) == (b"forced\n", 0)
    assert b"repeat to stop immediately" in err


WAITING = """
import time
from noiseless.commands.interrupt import stop_signals
try:
    with stop_signals() as received:
        print("ready", flush=True)
        while not received:
            time.sleep(0.01)
        print("asked to stop", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("forced")
"""


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_signals() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
