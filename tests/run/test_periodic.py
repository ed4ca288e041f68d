"""Analyses during a run: their numbers are those of later analyses and of a resumed run, and they change no bit."""

import pytest
import torch
from small_runs import call, copy, record, refused, resume, run, small_recipe, words

from noiseless.analysis import Hessian, gradient_noise, layers_of, stability_threshold, top_eigenvalues
from noiseless.ask.state import StateAddress, load_state
from noiseless.files import answers
from noiseless.run.updates import edge_of_stability

ANALYSES = {
    "sharpness_every": 2, "sharpness_count": 2, "noise_every": 3, "layers_every": 2, "checkpoint_seconds": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def analysed(data, tmp_path_factory):
    recipe = small_recipe(data, "fb-regularized", steps=5)
    return run(tmp_path_factory.mktemp("runs") / "asked", recipe, keep_every=1, **ANALYSES)


def test_analyses_run_at_due_steps_and_after_the_last(analysed):
    assert [row["step"] for row in analysed.rows() if "sharpness" in row] == [1, 3, 4]
    assert [row["step"] for row in analysed.rows() if "noise_scale" in row] == [2, 4]
    assert [row["step"] for row in analysed.rows() if "layers" in row] == [1, 3, 4]
    for row in analysed.rows():
        assert ("eigenvalues" in row) == ("sharpness" in row)
        assert ("asked_passes" in row) == ("sharpness" in row or "noise_scale" in row)


def test_the_numbers_are_those_of_the_state_after_the_step(analysed):
    row = analysed.rows()[3]
    state = load_state(StateAddress.read(f"{analysed.path}@4"))
    eigenvalues = top_eigenvalues(Hessian(state.risk), 2)
    assert row["eigenvalues"] == pytest.approx(eigenvalues.largest.values.tolist(), rel=2e-3)
    assert row["sharpness"] == row["eigenvalues"][0]
    assert len(row["eigenvalue_residuals"]) == 2
    assert row["stability"] is None  # the steps follow the Hessian of the penalised objective


def test_an_edge_belongs_to_the_hessian_that_steps_follow(data):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    edges = [
        [edge_of_stability(small_recipe(data, name, **changes), optimizer, of) for of in ("loss", "objective")]
        for name, changes in (("fb", {}), ("fb-regularized", {}), ("fb", {"sam": 0.05}), ("fb", {"parts": 2}))
    ]
    delayed = stability_threshold(optimizer, 2)
    assert edges == [[20, 20], [None, 20], [None, None], [delayed, delayed]]
    assert delayed == pytest.approx(20)  # x_{t+1} = x_t - a (x_t + x_{t-1}) / 20 grows from there on


def test_a_penalised_run_names_the_hessian_that_has_an_edge(analysed, tmp_path):
    directory = copy(analysed, tmp_path / "run")
    loss, objective = (call("sharpness", f"{directory.path}@4", "--of", of) for of in ("loss", "objective"))
    assert "--of objective has its edge of stability" in words(loss.out)
    assert "the edge of stability at lr" in words(objective.out)


def test_noise_and_layers_are_those_of_the_state_after_the_step(analysed):
    row = analysed.rows()[4]
    end = load_state(StateAddress.read(str(analysed.path)))
    noise = gradient_noise(end.risk)
    assert row["noise_scale"] == noise.total.noise_scale
    assert row["signal_to_noise"] == noise.total.signal_to_noise(noise.block)
    start, before = (load_state(StateAddress(analysed, step)) for step in (0, 4))
    thetas = [state.experiment.space.theta.clone() for state in (start, before)]
    gradient = before.objective.evaluate().gradient
    assert row["layers"] == layers_of(end.experiment.space, *thetas, gradient)


def test_analyses_change_no_bit(analysed, data, tmp_path):
    plain = run(tmp_path / "silent", small_recipe(data, "fb-regularized", steps=5))
    assert record(plain)[0] == record(analysed)[0]


@pytest.mark.parametrize("stop", [1, 2])
def test_a_resumed_run_has_the_same_answers(analysed, data, tmp_path, stop):
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
    assert record(directory) == record(analysed)


def test_an_adaptive_optimizer_has_a_second_sharpness(data, tmp_path):
    recipe = small_recipe(data, "fb", steps=2, optimizer="AdamW", lr=1e-3, momentum=None, nesterov=None)
    directory = run(tmp_path / "adamw", recipe, sharpness_every=1)
    rows = directory.rows()
    assert all(row["preconditioned_sharpness"] > 0 for row in rows)
    assert rows[0]["stability"] is None  # the warm-up begins at lr 0
    lr = rows[1]["lr"]
    assert rows[1]["stability"] == pytest.approx(1.9 / 0.1 * (2 - 5e-4 * lr) / lr)


def test_settings_out_of_range_are_refused(data):
    refused("train", "fb", "--data", data, "--sharpness-every", 0, names=("--sharpness-every", "0"))
    refused("train", "fb", "--data", data, "--keep-every", 0, names=("--keep-every", "0"))
    refused("train", "fb", "--data", data, "--block", 48, "--noise-every", 1, names=("one block of 48", "at most 24"))


def test_two_workers_write_the_same_answer(analysed, data, tmp_path):
    single, directory = copy(analysed, tmp_path / "single"), copy(analysed, tmp_path / "shared")
    flags = ("--density", "--probes", "1", "--smallest", "1", "--trace", "6")
    assert call("sharpness", f"{single.path}@4", *flags).code == 0
    assert call("sharpness", f"{directory.path}@4", *flags, "--workers", 2).code == 0
    one, two = (answers.read(source, "sharpness")[0].values for source in (single, directory))
    assert one["step"] == 4
    assert (len(one["smallest"]), one["density"] is None, one["trace"] is None) == (1, False, False)
    assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in two.items() if k != "seconds"}
