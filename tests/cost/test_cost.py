"""What a run will cost: passes against the record's, seconds against a real run."""

import numpy as np
import pytest
import torch
from small_runs import arrays, npz, prepare, run, small_recipe

from noiseless.cost.cost import Measured, alike, measure, seconds
from noiseless.recipes.ladder import LADDER, row
from noiseless.run.work import passes_a_step


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def estimate(experiment):
    return seconds(experiment.config.recipe, experiment.config.settings, measure(experiment))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sgd", {}),
        ("sgd", {"copies": 3}),
        ("fb", {"copies": 3}),
        ("fb", {"copies": 3, "parts": 4}),
        ("fb-regularized", {}),
        ("fb-regularized", {"full_penalty": 0.1}),
        ("fb-regularized", {"penalty_method": "central", "copies": 2}),
    ],
)
def test_the_passes_of_a_step_are_those_of_the_record(data, tmp_path, name, changes):
    recipe = small_recipe(data, name, steps=2, **changes)
    assert [each["passes"] for each in run(tmp_path / "run", recipe).rows()] == [
        passes_a_step(recipe), 2 * passes_a_step(recipe),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "parts"), [("sgd", 1), ("fb-strong", 1), ("fb", 6)])
def test_the_seconds_are_of_the_size_of_a_real_run_and_nothing_is_changed(data, tmp_path, name, parts):
    recipe = small_recipe(data, name, steps=20, parts=parts)
    experiment = prepare(recipe)
    before = {key: tensor.clone() for key, tensor in experiment.model.state_dict().items()}
    expected = estimate(experiment)
    for key, tensor in experiment.model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    found = sum(each["seconds"] for each in run(tmp_path / "run", recipe).rows())
    # a machine that does other work at the same time is the reason for the wide bounds
    assert found / 4 < expected < found * 4


def test_twice_the_copies_take_about_twice_as_long(tmp_path):
    # images enough for the sweep to outweigh what a step takes besides
    more = {name: np.concatenate([array] * 8) for name, array in arrays().items() if name.endswith("_train")}
    data = npz(tmp_path / "more.npz", **more)
    few, many = (estimate(prepare(small_recipe(data, "fb", steps=100, copies=n))) for n in (2, 8))
    assert 2 < many / few < 8


def test_rows_whose_steps_do_the_same_work_are_measured_once():
    rows = [row(name) for name in LADDER]
    kinds = {alike(each) for each in rows}
    # sgd; fb, longer and clipped; regularized; strong; practice, whose blocks are cut anew
    assert len(kinds) == 5
    assert alike(row("fb")) == alike(row("fb-clipped")) != alike(row("fb-regularized"))
    assert alike(row("fb")) != alike(row("fb", data="mnist-5k"))


def test_a_measurement_is_scaled_to_the_steps_and_evaluations_of_a_run(data):
    config = prepare(small_recipe(data, "fb", steps=20)).config  # evaluated every other step
    assert seconds(config.recipe, config.settings, Measured(step=3.0, evaluation=0.5)) == 20 * 3.0 + 10 * 0.5
