"""`--images N`: which training images are used, that the run is one on a set of these, and what a whitening sees."""

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


def numbers(part):
    """Of the images of a part, in the data set."""
    return set(range(len(part)) if part.chosen is None else part.chosen.tolist())


def parts(data, images, **changes):
    """The numbers of the images that are trained on, and of those that are held out."""
    made = prepare(small_recipe(data, "fb", images=images, block=4, **changes))
    assert len(made.train) == (images or len(numbers(made.train)))
    return numbers(made.train), numbers(made.test)


@pytest.mark.parametrize("validation", [0.0, SHARE])
def test_the_seed_draws_them(data, validation):
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
    assert [len(each) for each in sets] == [4, 5, 16, left - 1, left]
    assert all(small < large for small, large in pairwise(sets))
    assert sets[-1] == parts(data, None, validation=validation)[0]


@pytest.mark.parametrize("images", [4, 16, IMAGES - HELD, None])
def test_the_held_out_images_are_others_and_the_same_for_any_number(data, images):
    used, held = parts(data, images, validation=SHARE)
    assert len(held) == HELD
    assert not used & held
    assert held == parts(data, None, validation=SHARE)[1]


def test_without_validation_the_test_images_are_all_there(data):
    made = prepare(small_recipe(data, "fb", images=16))
    shown, labels = made.test.take(torch.arange(len(made.test)))
    mean, std = (torch.tensor(value) for value in (made.config.recipe.data.mean, made.config.recipe.data.std))
    assert torch.equal(shown[:, 0], (torch.from_numpy(arrays()["x_test"]).float() / 255 - mean) / std)
    assert labels.tolist() == arrays()["y_test"].tolist()


@pytest.mark.parametrize("model", ["resnet8", "speednet128"])
def test_a_run_is_that_on_a_set_of_these_images_alone(data, tmp_path, model):
    recipe = small_recipe(data, "fb-practice", images=20, augment="none", seed=3, model=model, steps=2)
    found = run(tmp_path / "some", recipe)
    made = prepare(recipe)
    all_of, used = arrays(), sorted(numbers(made.train))
    own = npz(tmp_path / "own.npz", x_train=all_of["x_train"][used], y_train=all_of["y_train"][used])
    pixels = {name: getattr(made.config.recipe.data, name) for name in ("mean", "std")}  # those of all training images
    alone = run(tmp_path / "own", with_flags(recipe, data=own, images=None, **pixels))
    for one, other in zip(found.rows(), alone.rows(), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_an_augmented_image_is_drawn_by_its_own_number(data):
    whole, made = (prepare(small_recipe(data, "fb", images=images)) for images in (None, 16))
    every = replace(whole.train, epoch=5).take(made.train.chosen)[0]
    assert torch.equal(replace(made.train, epoch=5).take(torch.arange(16))[0], every)


def test_the_plan_counts_them(data):
    for validation, tested in ((0.0, TESTED), (SHARE, HELD)):
        recipe = small_recipe(data, "fb", images=16, validation=validation)
        planned = sizes(recipe, Extent(IMAGES, TESTED, (1, 8, 8), 4))
        assert (planned.data.train, planned.data.test, planned.work.examples) == (16, tested, 16)


@pytest.mark.parametrize(("validation", "left"), [(0.0, IMAGES), (SHARE, IMAGES - HELD)])
def test_more_than_there_are_is_refused(data, tmp_path, validation, left):
    arguments = ["train", "fb", "--form", "small", "--data", data, "--block", "4", "--run-dir", tmp_path / "run"]
    arguments += ["--validation", validation, "--images"]
    sentence = f"--images {left + 1} exceeds the {left} training images that are left: give fewer"
    refused(*arguments, left + 1, names=(sentence,))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("images", [0, -3])
def test_a_number_that_is_none_is_refused(data, tmp_path, images):
    arguments = ("train", "fb", "--form", "small", "--data", data, "--run-dir", tmp_path / "run")
    refused(*arguments, "--images", images, names=("--images", images))


# --- what a whitening sees ---


def whitened(data, **changes):
    """The experiment and the weights of its whitening, with pixels whose scale no image moves."""
    recipe = small_recipe(data, "fb", model="speednet128", images=16, block=4, mean=(0.4,), std=(0.2,), **changes)
    made = prepare(recipe)
    return made, made.model.whiten.weight


@pytest.mark.parametrize("validation", [0.0, SHARE])
def test_a_whitening_sees_the_images_that_are_trained_on_and_no_others(data, tmp_path, validation):
    made, weight = whitened(data, validation=validation)
    used = torch.tensor(sorted(numbers(made.train)))
    alone = Whitening(1)
    alone.fit([torch.from_numpy(arrays()["x_train"])[used, None]], (0.2,))
    assert torch.equal(weight, alone.weight)

    def changed(name, which):
        x = arrays()["x_train"].copy()
        x[which] = 255 - x[which][:, ::-1] // 2
        return whitened(npz(tmp_path / f"{name}.npz", x_train=x), validation=validation)[1]

    others = np.setdiff1d(np.arange(IMAGES), used)
    assert len(others) == IMAGES - 16
    assert torch.equal(changed("others", others), weight)
    assert not torch.equal(changed("one", used[:1].numpy()), weight)


def test_a_whitening_sees_the_bytes_without_augmentation(data):
    plain, augmented = (whitened(data, augment=augment)[1] for augment in ("none", "crop-flip"))
    assert torch.equal(augmented, plain)
