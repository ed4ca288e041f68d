"""The effect of precision on a gradient: the reference is that of a plain float64 loop; a row for each arithmetic."""

from __future__ import annotations

import copy

import oracles
import pytest
import torch
from small_runs import arrays, call, examples_of_step, run, small_recipe, words

from noiseless.ask import precision
from noiseless.ask.state import load_state
from noiseless.files.address import StateAddress
from noiseless.objective import cross_entropy
from noiseless.run.build import rebuild


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """A finished run without augmentation."""
    return run(tmp_path_factory.mktemp("runs") / "run", small_recipe(data, "fb-clipped", augment="none"))


def test_the_reference_is_the_gradient_of_a_float64_loop(plain):
    recipe = plain.config().recipe
    model = rebuild(plain).model
    model.load_state_dict(plain.state())
    model = model.double().train()
    tiny = arrays()
    x = torch.from_numpy(tiny["x_train"]).double()[:, None] / 255
    x = (x - torch.tensor(recipe.data.mean, dtype=torch.float64)) / torch.tensor(recipe.data.std, dtype=torch.float64)
    data = (x, torch.from_numpy(tiny["y_train"]))
    expected = oracles.block_loop(model, cross_entropy, data, recipe.objective.block)
    exact = precision._evaluation(StateAddress(plain, None), precision.EXACT)
    gradient, expected_gradient = exact.gradient, expected.gradient
    assert gradient.dtype == torch.float64
    # some hundred float64 roundings of 1e-16 each, as in oracles.ROUNDING
    assert float((gradient - expected_gradient).norm() / expected_gradient.norm()) < 1e-11
    assert exact.loss == pytest.approx(expected.loss, rel=1e-11)


def test_each_arithmetic_differs_by_its_precision(plain):
    single, half = precision.against_float64(StateAddress(plain, None))
    assert (single.way, half.way) == ("as the run does: float32", "float32, bfloat16 autocast")
    # roundings of 6e-8 and 4e-3, accumulated over some ten layers: more than a tenth of one, less than a hundred
    assert 6e-9 < single.relative < 6e-6
    assert 4e-4 < half.relative < 0.4
    assert 0 < single.largest < half.largest
    assert single.loss < 6e-6 < half.loss < 0.4  # of the loss, as of the gradient


@pytest.mark.parametrize(
    ("changes", "ways"),
    [
        ({"dtype": "float64"}, ["float32", "float32, bfloat16 autocast"]),
        ({"autocast": "bfloat16"}, ["as the run does: float32, bfloat16 autocast", "float32"]),
    ],
)
def test_the_runs_own_arithmetic_comes_first(changes, ways, data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb-clipped", steps=1, warmup=0, **changes))
    rows = precision.against_float64(StateAddress(directory, None))
    assert [row.way for row in rows] == ways
    assert "bfloat16" in max(rows, key=lambda row: row.relative).way


def test_a_penalty_is_compared_as_well(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb-regularized", steps=1, warmup=0))
    assert (
        0 < precision.against_float64(StateAddress(directory, None))[0].relative < 1e-3
    )  # its finite differences amplify rounding


@pytest.mark.parametrize("method", ["forward", "central"])
def test_the_difference_of_a_penalty_in_float64_is_that_of_plain_autograd(method, data, tmp_path):
    recipe = small_recipe(data, "fb-regularized", steps=1, warmup=0, penalty_method=method, augment="none")
    directory = run(tmp_path / "run", recipe)
    state = load_state(StateAddress(directory, None), None, precision.EXACT.change)
    x, y = (column[:16] for column in examples_of_step(state.experiment, 0)[0])
    model = copy.deepcopy(state.experiment.model)
    parameters = list(model.parameters())

    def gradient():
        loss = cross_entropy(model(x.double()), y).mean()
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])

    def moved(h):
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(theta + h * g, parameters)
        return gradient()

    theta, g = torch.nn.utils.parameters_to_vector(parameters).detach(), gradient()
    h = state.penalised.eps / g.norm()
    expected = (moved(h) - g) / h if method == "forward" else (moved(h) - moved(-h)) / (2 * h)
    computed = precision._difference(StateAddress(directory, None), precision.EXACT.change)
    assert float((computed - expected).norm() / expected.norm()) < 1e-9  # 1e-16 / h of some thousand operations


def test_the_noise_of_a_difference_falls_with_the_length_of_its_probe(data, tmp_path):
    noise = []
    for eps in (1e-2, 1e-4):
        recipe = small_recipe(data, "fb-regularized", steps=1, warmup=0, penalty_eps=eps)
        noise.append(precision.penalty_noise(StateAddress(run(tmp_path / f"{eps}", recipe), None)))
    assert 1e-6 < noise[0] < 1e-2
    assert 10 * noise[0] < noise[1]


@pytest.mark.parametrize("changes", [{"penalty": 0.0}, {"dtype": "float64"}, {"penalty_method": "exact"}])
def test_a_run_without_such_a_difference_has_no_noise(changes, data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb-regularized", steps=1, warmup=0, **changes))
    assert precision.penalty_noise(StateAddress(directory, None)) is None


def test_verify_says_it(finished, monkeypatch):
    monkeypatch.setattr("noiseless.ask.verify.WORKERS", ())
    answer = call("verify", finished.path)
    assert answer.code == 0, answer.err
    noise = f"{precision.penalty_noise(StateAddress(finished, None)):.2e}"
    assert f"the penalty's finite difference on the first block is {noise} of its length" in words(answer.out)


def test_verify_without_precision_does_not_compute_float64(plain, monkeypatch):
    def fail(directory):
        raise AssertionError("float64 was not to be asked")

    monkeypatch.setattr(precision, "against_float64", fail)
    monkeypatch.setattr("noiseless.ask.verify.WORKERS", ())
    answer = call("verify", plain.path, "--no-precision")
    assert answer.code == 0, answer.err
    assert "float64" not in answer.out
