"""Max-up in a run: which draws an update has, and its value and gradient against a loop over images."""

from __future__ import annotations

import oracles
import pytest
import torch
import torch.nn.functional as F
from oracles import ROUNDING
from small_runs import IMAGES, examples_of_step, prepare, refused, run, small_recipe

from noiseless import keyed
from noiseless.data import crop_flip


def normalised(experiment, pixels):
    recipe = experiment.config.recipe
    return (pixels.double() / 255 - recipe.data.mean[0]) / recipe.data.std[0]


def largest_of(draws):
    """The mean over images of the largest loss of successive draws, as one value repeated for each draw."""

    def loss(output, target):
        losses = F.cross_entropy(output, target, reduction="none")
        largest = [max(losses[start : start + draws]) for start in range(0, len(losses), draws)]
        return torch.stack([value for value in largest for _ in range(draws)])

    return loss


def assert_agree(actual, naive):
    assert actual.loss == pytest.approx(naive.loss, rel=1e-11)
    torch.testing.assert_close(actual.gradient, naive.gradient, rtol=1e-9, atol=1e-11)  # through 8 layers, see ROUNDING
    torch.testing.assert_close(actual.block_square_norms, naive.block_square_norms, rtol=1e-9, atol=ROUNDING["atol"])
    assert actual.hits == naive.hits


def draws_of(experiment, step, order, draws):
    """The draws of the images of an order, one image after the other; each step has other keys."""
    images, labels = experiment.train.images, experiment.train.labels
    copies = [crop_flip(images[order], 0, step * draws + k, order, 1, 0.5) for k in range(draws)]  # each [n, C, H, W]
    pixels = torch.stack([copies[k][i] for i in range(len(order)) for k in range(draws)])
    return normalised(experiment, pixels), torch.stack([labels[i] for i in order for _ in range(draws)])


MAX_UP = {"dtype": "float64", "padding": 1, "flip": 0.5}


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize(
    ("draws", "changes"),
    [
        (2, {}),
        (2, {"shuffle": True, "block": 20}),
        (3, {"block": 30, "norm_block": 15}),
        (4, {"drop_last": True, "block": 40}),
    ],
)
def test_the_full_batch_of_max_up_is_the_mean_over_images_of_their_largest_loss(data, draws, changes, chunk):
    experiment = prepare(small_recipe(data, "fb", max_up=draws, **MAX_UP, **changes), chunk=chunk)
    settings = experiment.config.recipe.objective
    for step in (0, 1):
        order = keyed.permutation(0, "shuffle", step, IMAGES) if settings.shuffle else torch.arange(IMAGES)
        order = order[: IMAGES * draws // settings.block * settings.block // draws] if settings.drop_last else order
        tensors = draws_of(experiment, step, order, draws)
        (objective,) = experiment.regime.objectives(step)
        evaluation = objective.evaluate()
        ghosted = oracles.ghosted(experiment.model, settings.norm_block)
        assert_agree(evaluation, oracles.block_loop(ghosted, largest_of(draws), tensors, settings.block))
        assert evaluation.count == len(order) * draws
        assert evaluation.passes == pytest.approx(draws * len(order) / IMAGES, rel=1e-12)


@pytest.mark.parametrize("replacement", [False, True])
def test_a_stochastic_step_of_max_up_has_the_draws_of_an_image_in_one_update(data, replacement):
    experiment = prepare(small_recipe(data, "sgd", max_up=2, block=20, replacement=replacement, **MAX_UP))
    order = keyed.permutation(0, "shuffle", 1, IMAGES)
    if replacement:
        order = keyed.integers(0, "replacement", 1, torch.arange(IMAGES), IMAGES)
    tensors = draws_of(experiment, 1, order, 2)
    passes, parts = 0.0, list(experiment.regime.objectives(1))
    assert len(parts) == 5  # 96 draws in updates of 20, the last of 16
    for number, objective in enumerate(parts):
        part = [t[20 * number : 20 * number + 20] for t in tensors]
        evaluation = objective.evaluate()
        assert_agree(evaluation, oracles.block_loop(oracles.ghosted(experiment.model, 20), largest_of(2), part, 20))
        passes += evaluation.passes
    assert passes == pytest.approx(2, rel=1e-12)


def test_no_two_steps_of_max_up_share_a_draw(data):
    experiment = prepare(small_recipe(data, "fb", max_up=2, padding=4, flip=0.5))
    images = torch.stack(
        [examples_of_step(experiment, step)[0][0].reshape(IMAGES, 2, -1) for step in range(3)], 1
    ).flatten(1, 2)
    # an image has 9 * 9 * 2 pictures: of 6 draws, two are alike with probability below 15 / 162 by chance
    alike = [6 - len({tuple(x) for x in draws.tolist()}) for draws in images]
    assert sum(alike) / IMAGES < 0.5


@pytest.mark.parametrize(("name", "block"), [("fb", 96), ("sgd", 96), ("sgd", 64)])
def test_a_block_may_hold_more_draws_than_there_are_images(data, tmp_path, name, block):
    rows = run(tmp_path / "run", small_recipe(data, name, max_up=2, block=block, steps=1)).rows()
    assert [row["passes"] for row in rows] == [2]


@pytest.mark.parametrize("name", ["fb", "sgd"])
def test_a_block_of_more_draws_than_there_are_is_refused_before_a_run_begins(data, tmp_path, name):
    flags = ("--data", data, "--max-up", 2, "--block", 98, "--run-dir", tmp_path / "run")
    refused("train", name, *flags, names=("block 98", "at most 96"))
    assert not (tmp_path / "run").exists()
