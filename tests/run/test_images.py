"""`--images N`: which images are used, that the run equals one on these images alone, and what a whitening uses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_runs import IMAGES, TESTED, arrays, npz, prepare, refused, run, small_recipe

from noiseless.cost.sizes import sizes
from noiseless.data import Extent
from noiseless.models.speednet import Whitening
from noiseless.recipes.flags import with_flags

SHARE, HELD = 0.25, 12  # a quarter of 48 images


def indices(part):
    """Indices, in the data set, of the images of a part."""
    return set(range(len(part)) if part.chosen is None else part.chosen.tolist())


def parts(data, images, **changes):
    """Indices of the images that are trained on, and of those that are evaluated."""
    experiment = prepare(small_recipe(data, "fb", images=images, block=4, **changes))
    assert len(experiment.train) == (images or len(indices(experiment.train)))
    return indices(experiment.train), indices(experiment.test)


@pytest.mark.parametrize("validation", [0.0, SHARE])
def test_the_seed_draws_the_images(data, validation):
    first, _ = parts(data, 16, validation=validation)
    assert len(first) == 16
    assert parts(data, 16, validation=validation)[0] == first
    # a draw of the first 16, or one that the seed does not change, would not differ: two draws of 16 of 36 images are
    # the same with probability 1e-10
    assert first not in (parts(data, 16, validation=validation, seed=1)[0], set(range(16)))


@pytest.mark.parametrize("validation", [0.0, SHARE])
def test_a_smaller_set_is_contained_in_a_larger_one(data, validation):
    left = IMAGES - (HELD if validation else 0)
    sets = [parts(data, images, validation=validation)[0] for images in (4, 5, 16, left - 1, left)]
    assert [len(chosen) for chosen in sets] == [4, 5, 16, left - 1, left]
    assert all(small < large for small, large in pairwise(sets))
    assert sets[-1] == parts(data, None, validation=validation)[0]


@pytest.mark.parametrize("images", [4, 16, IMAGES - HELD, None])
def test_the_held_out_images_are_disjoint_and_the_same_for_any_number(data, images):
    used, held = parts(data, images, validation=SHARE)
    assert len(held) == HELD
    assert not used & held
    assert held == parts(data, None, validation=SHARE)[1]


def test_without_validation_all_test_images_are_used(data):
    experiment = prepare(small_recipe(data, "fb", images=16))
    shown, labels = experiment.test.take(torch.arange(len(experiment.test)))
    mean, std = (
        torch.tensor(value) for value in (experiment.config.recipe.data.mean, experiment.config.recipe.data.std)
    )
    assert torch.equal(shown[:, 0], (torch.from_numpy(arrays()["x_test"]).float() / 255 - mean) / std)
    assert labels.tolist() == arrays()["y_test"].tolist()


@pytest.mark.parametrize("model", ["resnet8", "speednet128"])
def test_a_run_equals_one_on_a_data_set_of_these_images_alone(data, tmp_path, model):
    recipe = small_recipe(data, "fb-practice", images=20, augment="none", seed=3, model=model, steps=2)
    directory = run(tmp_path / "some", recipe)
    experiment = prepare(recipe)
    tiny, used = arrays(), sorted(indices(experiment.train))
    data_alone = npz(tmp_path / "own.npz", x_train=tiny["x_train"][used], y_train=tiny["y_train"][used])
    pixels = {name: getattr(experiment.config.recipe.data, name) for name in ("mean", "std")}  # of all training images
    alone = run(tmp_path / "own", with_flags(recipe, data=data_alone, images=None, **pixels))
    for one, other in zip(directory.rows(), alone.rows(), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_an_image_is_augmented_by_its_index_in_the_data_set(data):
    full, subset = (prepare(small_recipe(data, "fb", images=images)) for images in (None, 16))
    expected = replace(full.train, epoch=5).take(subset.train.chosen)[0]
    assert torch.equal(replace(subset.train, epoch=5).take(torch.arange(16))[0], expected)


def test_the_plan_counts_the_images(data):
    for validation, tested in ((0.0, TESTED), (SHARE, HELD)):
        recipe = small_recipe(data, "fb", images=16, validation=validation)
        planned = sizes(recipe, Extent(IMAGES, TESTED, (1, 8, 8), 4))
        assert (planned.data.train, planned.data.test, planned.work.examples) == (16, tested, 16)


@pytest.mark.parametrize(("validation", "left"), [(0.0, IMAGES), (SHARE, IMAGES - HELD)])
def test_more_images_than_are_left_are_refused(data, tmp_path, validation, left):
    arguments = ["train", "fb", "--form", "small", "--data", data, "--block", "4", "--run-dir", tmp_path / "run"]
    arguments += ["--validation", validation, "--images"]
    sentence = f"--images {left + 1} exceeds the {left} training images that are left: give fewer"
    refused(*arguments, left + 1, names=(sentence,))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("images", [0, -3])
def test_a_number_of_images_below_one_is_refused(data, tmp_path, images):
    arguments = ("train", "fb", "--form", "small", "--data", data, "--run-dir", tmp_path / "run")
    refused(*arguments, "--images", images, names=("--images", images))


# --- what a whitening is fitted to ---


def whitened(data, **changes):
    """The experiment and the weights of its whitening; mean and std are fixed, so that no image changes the scale."""
    recipe = small_recipe(data, "fb", model="speednet128", images=16, block=4, mean=(0.4,), std=(0.2,), **changes)
    experiment = prepare(recipe)
    return experiment, experiment.model.whiten.weight


@pytest.mark.parametrize("validation", [0.0, SHARE])
def test_a_whitening_is_fitted_to_the_images_that_are_trained_on_and_no_others(data, tmp_path, validation):
    experiment, weight = whitened(data, validation=validation)
    used = torch.tensor(sorted(indices(experiment.train)))
    alone = Whitening(1)
    alone.fit([torch.from_numpy(arrays()["x_train"])[used, None]], (0.2,))
    assert torch.equal(weight, alone.weight)

    def changed(name, index):
        x = arrays()["x_train"].copy()
        x[index] = 255 - x[index][:, ::-1] // 2
        return whitened(npz(tmp_path / f"{name}.npz", x_train=x), validation=validation)[1]

    others = np.setdiff1d(np.arange(IMAGES), used)
    assert len(others) == IMAGES - 16
    assert torch.equal(changed("others", others), weight)
    assert not torch.equal(changed("one", used[:1].numpy()), weight)


def test_a_whitening_is_fitted_to_the_bytes_without_augmentation(data):
    plain, augmented = (whitened(data, augment=augment)[1] for augment in ("none", "crop-flip"))
    assert torch.equal(augmented, plain)
