"""What precision changes in a gradient: the measure is a plain float64 loop's, each row of the arithmetic it names."""

from __future__ import annotations

import oracles
import pytest
import torch
from small_runs import arrays, call, run, small_recipe

from noiseless.ask import precision
from noiseless.objective import cross_entropy
from noiseless.run.build import rebuild


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """A finished run on images as they are."""
    return run(tmp_path_factory.mktemp("runs") / "run", small_recipe(data, "fb-clipped", augment="none"))


def test_the_measure_is_the_gradient_of_a_float64_loop(plain):
    recipe = plain.config().recipe
    model = rebuild(plain).model
    model.load_state_dict(plain.state())
    model = model.double().train()
    made = arrays()
    x = torch.from_numpy(made["x_train"]).double()[:, None] / 255
    x = (x - torch.tensor(recipe.data.mean, dtype=torch.float64)) / torch.tensor(recipe.data.std, dtype=torch.float64)
    data = (x, torch.from_numpy(made["y_train"]))
    expected = oracles.block_loop(model, cross_entropy, data, recipe.objective.block).gradient
    found = precision._gradient(plain, precision.EXACT)
    assert found.dtype == torch.float64
    # some hundred float64 roundings of 1e-16 each, as in oracles.ROUNDING
    assert float((found - expected).norm() / expected.norm()) < 1e-11


def test_each_arithmetic_is_off_by_its_own_precision(plain):
    single, half = precision.against_float64(plain)
    assert (single.way, half.way) == ("as the run does: float32", "float32, bfloat16 autocast")
    # roundings of 6e-8 and 4e-3, which some ten layers pass on: more than a tenth of one, less than a hundred
    assert 6e-9 < single.relative < 6e-6
    assert 4e-4 < half.relative < 0.4
    assert 0 < single.largest < half.largest


@pytest.mark.parametrize(
    ("changes", "ways"),
    [
        ({"dtype": "float64"}, ["float32", "float32, bfloat16 autocast"]),
        ({"autocast": "bfloat16"}, ["as the run does: float32, bfloat16 autocast", "float32"]),
    ],
)
def test_the_runs_own_arithmetic_comes_first(changes, ways, data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb-clipped", steps=1, warmup=0, **changes))
    found = precision.against_float64(directory)
    assert [each.way for each in found] == ways
    assert "bfloat16" in max(found, key=lambda each: each.relative).way


def test_a_penalty_is_compared_as_well(data, tmp_path):
    directory = run(tmp_path / "run", small_recipe(data, "fb-regularized", steps=1, warmup=0))
    assert 0 < precision.against_float64(directory)[0].relative < 1e-3  # its finite differences amplify rounding


def test_verify_leaves_it_out_where_that_is_asked(plain, monkeypatch):
    def asked(directory):
        raise AssertionError("float64 was not to be asked")

    monkeypatch.setattr(precision, "against_float64", asked)
    monkeypatch.setattr("noiseless.ask.verify.WORKERS", ())
    answer = call("verify", plain.path, "--no-precision")
    assert answer.code == 0, answer.err
    assert "float64" not in answer.out
