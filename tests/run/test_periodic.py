"""What a run asks on the way: the same numbers as asked later, after a resume, and with the bits left alone."""

import sys

import jobs
import pytest
from small_runs import call, copy, record, refused, resume, run, small_recipe

from noiseless.analysis import Hessian, gradient_noise, layers_of, stability_threshold, top_eigenvalues
from noiseless.ask.state import StateAddress, load_state
from noiseless.files import answers

ASKED = {
    "sharpness_every": 2, "sharpness_count": 2, "noise_every": 3, "layers_every": 2, "checkpoint_seconds": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def asked(data, tmp_path_factory):
    recipe = small_recipe(data, "fb-regularized", steps=5)
    return run(tmp_path_factory.mktemp("runs") / "asked", recipe, keep_every=1, **ASKED)


def test_due_steps_and_the_last(asked):
    assert [row["step"] for row in asked.rows() if "sharpness" in row] == [1, 3, 4]
    assert [row["step"] for row in asked.rows() if "noise_scale" in row] == [2, 4]
    assert [row["step"] for row in asked.rows() if "layers" in row] == [1, 3, 4]
    for row in asked.rows():
        assert ("eigenvalues" in row) == ("sharpness" in row)
        assert ("asked_passes" in row) == ("sharpness" in row or "noise_scale" in row)


def test_the_numbers_are_those_of_the_state_after_the_step(asked):
    row = asked.rows()[3]
    later = load_state(StateAddress.read(f"{asked.path}@4"))
    found = top_eigenvalues(Hessian(later.risk), 2)
    assert row["eigenvalues"] == pytest.approx(found.largest.values.tolist(), rel=2e-3)
    assert row["sharpness"] == row["eigenvalues"][0]
    assert len(row["eigenvalue_residuals"]) == 2
    for group in later.experiment.optimizer.param_groups:
        group["lr"] = row["lr"]
    assert row["stability"] == stability_threshold(later.experiment.optimizer)


def test_noise_and_layers_are_those_of_the_state_after_the_step(asked):
    row = asked.rows()[4]
    later = load_state(StateAddress.read(str(asked.path)))
    noise = gradient_noise(later.risk)
    assert row["noise_scale"] == noise.total.noise_scale
    assert row["signal_to_noise"] == noise.total.signal_to_noise(noise.block)
    start, before = (load_state(StateAddress(asked, step)) for step in (0, 4))
    thetas = [state.experiment.space.theta.clone() for state in (start, before)]
    gradient = before.objective.evaluate().gradient
    assert row["layers"] == layers_of(later.experiment.space, *thetas, gradient)


def test_asking_changes_no_bit(asked, data, tmp_path):
    silent = run(tmp_path / "silent", small_recipe(data, "fb-regularized", steps=5))
    assert record(silent)[0] == record(asked)[0]


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_has_the_same_answers(asked, data, tmp_path, stop):
    recipe = small_recipe(data, "fb-regularized", steps=5)
    directory = run(
        tmp_path / "stopped",
        recipe,
        stop_after=stop,
        sharpness_every=2,
        sharpness_count=2,
        noise_every=3,
        layers_every=2,
        checkpoint_seconds=0,
    )
    resume(directory)
    assert record(directory) == record(asked)


def test_an_adaptive_optimizer_has_a_second_sharpness(data, tmp_path):
    recipe = small_recipe(data, "fb", steps=2, optimizer="AdamW", lr=1e-3, momentum=None, nesterov=None)
    directory = run(tmp_path / "adamw", recipe, sharpness_every=1)
    rows = directory.rows()
    assert all(row["preconditioned_sharpness"] > 0 for row in rows)
    assert rows[0]["stability"] is None  # the warm-up begins at lr 0
    lr = rows[1]["lr"]
    assert rows[1]["stability"] == pytest.approx(1.9 / 0.1 * (2 - 5e-4 * lr) / lr)


def test_wrong_settings(data):
    refused("train", "fb", "--data", data, "--sharpness-every", 0, names=("--sharpness-every", "0"))
    refused("train", "fb", "--data", data, "--keep-every", 0, names=("--keep-every", "0"))
    refused("train", "fb", "--data", data, "--block", 48, "--noise-every", 1, names=("one block of 48", "at most 24"))


def test_workers_find_the_same_bits(asked, data, tmp_path):
    directory = copy(asked, tmp_path / "shared")
    flags = ("--density", "--probes", "1", "--smallest", "1", "--trace", "6")
    assert call("sharpness", f"{asked.path}@4", *flags).code == 0
    command = [sys.executable, "-m", "noiseless", "sharpness", f"{directory.path}@4", *flags, "--workers", "2"]
    job = jobs.Job(command, tmp_path / "log")
    assert job.wait() == 0, job.log.read_text()[-3000:]
    one, two = (answers.read(place, "sharpness")[0].values for place in (asked, directory))
    assert len(asked.rows()) > 0
    assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in two.items() if k != "seconds"}
