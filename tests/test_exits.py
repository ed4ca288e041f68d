"""Exit codes: one command for each, and the code that a worker of a job writes for the program that started it."""

import pytest
from small_runs import call, copy

from noiseless import exits
from noiseless.ask import verify
from noiseless.commands import training
from noiseless.objective.workers import WorkerLostError


def test_a_command_that_succeeds_has_code_0(practice):
    assert call("digest", practice.path).code == 0


def test_a_users_mistake_has_code_2(practice):
    assert call("digest", practice.path / "nowhere").code == exits.USER_ERROR == 2


def test_a_loss_that_is_not_finite_has_code_3(data, tmp_path):
    flags = ("--model", "linear", "--block", 16, "--steps", 3, "--threads", 1, "--lr", 1e30, "--warmup", 0)
    answer = call("train", "fb", "--data", data, *flags, "--run-dir", tmp_path / "run")
    assert answer.code == exits.DIVERGED == 3


def test_a_lost_worker_has_code_4(practice, tmp_path, monkeypatch):
    def lost(session, trackers, copied):
        raise WorkerLostError("worker 1 is gone")

    monkeypatch.setattr(training, "_run", lost)
    directory = copy(practice, tmp_path / "run")
    directory.model.unlink()
    answer = call("resume", directory.path)
    assert (answer.code, answer.err) == (exits.WORKER_LOST, "error: worker 1 is gone\n")
    assert exits.WORKER_LOST == 4


@pytest.mark.parametrize(("digests", "code"), [(("a", "a", "a"), 0), (("a", "a", "b"), exits.DIFFERENT)])
def test_bits_that_differ_have_code_5(practice, monkeypatch, digests, code):
    digests_of_ways = [verify.GradientDigest(f"way {number}", digest) for number, digest in enumerate(digests)]
    monkeypatch.setattr(verify, "verify", lambda directory: (digests_of_ways, []))
    answer = call("verify", practice.path, "--no-precision")
    assert answer.code == code
    assert answer.out.count("DIFFERENT") == digests.count("b")
    assert exits.DIFFERENT == 5


def test_an_interrupt_has_code_130(practice, monkeypatch):
    def interrupted(directory):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "verify", interrupted)
    answer = call("verify", practice.path)
    assert (answer.code, answer.err) == (exits.INTERRUPTED, "interrupted\n")
    assert exits.INTERRUPTED == 130
