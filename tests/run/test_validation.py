"""A validation part: which images are held out, that the run equals one on the other images alone, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import IMAGES, arrays, npz, prepare, refused, run, small_recipe

from noiseless.cost.sizes import sizes
from noiseless.data import Extent
from noiseless.recipes.flags import with_flags
from noiseless.run.evaluate import score

SHARE, HELD = 0.25, 12  # a quarter of 48 images


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def parts(data, **changes):
    """The experiment, the indices of the images that are trained on, and of those that are evaluated."""
    experiment = prepare(small_recipe(data, "fb", validation=SHARE, **changes))
    return experiment, experiment.train.chosen, experiment.test.chosen


def test_the_two_parts_are_all_training_images_once(data):
    experiment, trained, held = parts(data)
    assert (len(experiment.train), len(experiment.test)) == (len(trained), len(held)) == (IMAGES - HELD, HELD)
    assert sorted([*trained.tolist(), *held.tolist()]) == list(range(IMAGES))
    pixels = torch.from_numpy(arrays()["x_train"])
    evaluated = experiment.test.take(torch.arange(HELD))
    mean, std = (
        torch.tensor(value) for value in (experiment.config.recipe.data.mean, experiment.config.recipe.data.std)
    )
    assert torch.equal(evaluated[0][:, 0], (pixels[held].float() / 255 - mean) / std)
    assert evaluated[1].tolist() == arrays()["y_train"][held].tolist()


def test_the_seed_draws_the_part(data):
    _, trained, _ = parts(data)
    assert torch.equal(trained, parts(data)[1])
    assert not torch.equal(trained, parts(data, seed=1)[1])


def test_a_run_equals_one_on_a_data_set_of_the_remaining_images_alone(data, tmp_path):
    recipe = small_recipe(data, "fb-practice", validation=SHARE, augment="none", seed=3)
    directory = run(tmp_path / "held", recipe)
    experiment, trained, held = parts(data, seed=3)
    tiny = arrays()
    data_alone = npz(
        tmp_path / "own.npz", x_train=tiny["x_train"][trained], y_train=tiny["y_train"][trained],
        x_test=tiny["x_train"][held], y_test=tiny["y_train"][held],
    )  # fmt: skip
    pixels = {name: getattr(experiment.config.recipe.data, name) for name in ("mean", "std")}
    alone = run(tmp_path / "own", with_flags(recipe, data=data_alone, validation=0.0, **pixels))
    for one, other in zip(directory.rows(), alone.rows(), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert directory.rows()[-1]["test_accuracy"] is not None


def test_an_image_is_augmented_by_its_index_in_the_data_set(data):
    full = prepare(small_recipe(data, "fb")).train
    experiment, trained, _ = parts(data)
    expected = replace(full, epoch=5).take(trained)[0]
    assert torch.equal(replace(experiment.train, epoch=5).take(torch.arange(len(trained)))[0], expected)
    # and copy 1 of a fixed set of these images has the draws of epoch 6
    copies = replace(experiment.train, epoch=5, copies=2)
    assert len(copies) == 2 * len(trained)
    second = copies.take(len(trained) + torch.arange(len(trained)))[0]
    assert torch.equal(second, replace(full, epoch=6).take(trained)[0])


def test_a_choice_of_a_choice_has_indices_in_the_data_set(data):
    experiment, trained, _ = parts(data)
    some = torch.tensor([4, 0, 7])
    assert torch.equal(experiment.train.only(some).only(torch.tensor([2, 0])).chosen, trained[torch.tensor([7, 4])])


def test_the_test_images_are_not_used(data, tmp_path):
    other = npz(tmp_path / "other.npz", x_test=255 - arrays()["x_test"], y_test=arrays()["y_test"][::-1].copy())
    recipe = small_recipe(data, "fb", validation=SHARE)
    one, two = (run(tmp_path / name, with_flags(recipe, data=source)) for name, source in (("a", data), ("b", other)))
    assert one.rows()[-1]["test_loss"] == two.rows()[-1]["test_loss"]


def test_the_plan_counts_the_parts(data):
    experiment = prepare(small_recipe(data, "fb", validation=SHARE))
    planned = sizes(experiment.config.recipe, Extent(IMAGES, 20, (1, 8, 8), 4))
    assert (planned.data.train, planned.data.test, planned.work.examples) == (IMAGES - HELD, HELD, IMAGES - HELD)
    assert np.isfinite(score(experiment.model, experiment.test).loss)


@pytest.mark.parametrize(
    ("share", "names"),
    [
        (1.0, ("--validation", "1.0", "below 1")),
        (-0.1, ("--validation", "-0.1")),
        (0.001, ("--validation 0.001", "48", "hold out 0")),
        (0.999, ("--validation 0.999", "hold out 48")),
    ],
)
def test_parts_without_images_are_refused(data, tmp_path, share, names):
    arguments = ("train", "fb", "--form", "small", "--data", data, "--run-dir", tmp_path / "run")
    refused(*arguments, "--validation", share, names=names)
    assert not (tmp_path / "run").exists()
