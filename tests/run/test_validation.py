"""A validation part: which images are held out, that the rest is trained on as a set of its own, what is refused."""

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
    """The numbers of the images that are trained on, and of those that are evaluated."""
    made = prepare(small_recipe(data, "fb", validation=SHARE, **changes))
    return made, made.train.chosen, made.test.chosen


def test_the_two_parts_are_all_training_images_once(data):
    made, kept, held = parts(data)
    assert (len(made.train), len(made.test)) == (len(kept), len(held)) == (IMAGES - HELD, HELD)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(IMAGES))
    pixels = torch.from_numpy(arrays()["x_train"])
    shown = made.test.take(torch.arange(HELD))
    mean, std = (torch.tensor(value) for value in (made.config.recipe.data.mean, made.config.recipe.data.std))
    assert torch.equal(shown[0][:, 0], (pixels[held].float() / 255 - mean) / std)
    assert shown[1].tolist() == arrays()["y_train"][held].tolist()


def test_the_seed_draws_the_part(data):
    _, kept, _ = parts(data)
    assert torch.equal(kept, parts(data)[1])
    assert not torch.equal(kept, parts(data, seed=1)[1])


def test_a_run_is_that_on_a_set_of_the_kept_images_alone(data, tmp_path):
    recipe = small_recipe(data, "fb-practice", validation=SHARE, augment="none", seed=3)
    found = run(tmp_path / "held", recipe)
    made, kept, held = parts(data, seed=3)
    all_of = arrays()
    own = npz(
        tmp_path / "own.npz", x_train=all_of["x_train"][kept], y_train=all_of["y_train"][kept],
        x_test=all_of["x_train"][held], y_test=all_of["y_train"][held],
    )  # fmt: skip
    pixels = {name: getattr(made.config.recipe.data, name) for name in ("mean", "std")}
    alone = run(tmp_path / "own", with_flags(recipe, data=own, validation=0.0, **pixels))
    for one, other in zip(found.rows(), alone.rows(), strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert found.rows()[-1]["test_accuracy"] is not None


def test_an_augmented_image_is_drawn_by_its_own_number(data):
    whole = prepare(small_recipe(data, "fb")).train
    made, kept, _ = parts(data)
    every = replace(whole, epoch=5).take(kept)[0]
    assert torch.equal(replace(made.train, epoch=5).take(torch.arange(len(kept)))[0], every)
    # and copy 1 of a fixed set of the kept images has the draws of epoch 6
    copies = replace(made.train, epoch=5, copies=2)
    assert len(copies) == 2 * len(kept)
    second = copies.take(len(kept) + torch.arange(len(kept)))[0]
    assert torch.equal(second, replace(whole, epoch=6).take(kept)[0])


def test_a_choice_of_a_choice(data):
    made, kept, _ = parts(data)
    some = torch.tensor([4, 0, 7])
    assert torch.equal(made.train.only(some).only(torch.tensor([2, 0])).chosen, kept[torch.tensor([7, 4])])


def test_the_test_images_are_not_asked(data, tmp_path):
    other = npz(tmp_path / "other.npz", x_test=255 - arrays()["x_test"], y_test=arrays()["y_test"][::-1].copy())
    recipe = small_recipe(data, "fb", validation=SHARE)
    one, two = (run(tmp_path / name, with_flags(recipe, data=each)) for name, each in (("a", data), ("b", other)))
    assert one.rows()[-1]["test_loss"] == two.rows()[-1]["test_loss"]


def test_the_plan_counts_the_parts(data):
    made = prepare(small_recipe(data, "fb", validation=SHARE))
    planned = sizes(made.config.recipe, Extent(IMAGES, 20, (1, 8, 8), 4))
    assert (planned.data.train, planned.data.test, planned.work.examples) == (IMAGES - HELD, HELD, IMAGES - HELD)
    assert np.isfinite(score(made.model, made.test).loss)


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
