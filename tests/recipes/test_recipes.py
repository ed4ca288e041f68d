"""The ladder: each row holds the settings of the paper's table, and differs from its predecessor only in them."""

from itertools import pairwise

import pytest

from noiseless.recipes.flags import flag_value
from noiseless.recipes.ladder import LADDER, PREDECESSORS, RECIPES, differences, row
from noiseless.run.work import passes_a_step

# arXiv 2109.14119, table of the ladder: steps, lr, warm-up, cosine horizon; then what the column "change" adds up to.
# sgd-longer is not in it: it is sgd with the passes of the last rows, 3000 steps of two gradients.
TABLE = {
    "sgd": (300, 0.1, 5, 300, None, 0.0, 128),
    "sgd-longer": (6000, 0.1, 100, 6000, None, 0.0, 128),
    "fb": (300, 0.1, 5, 300, None, 0.0, 128),
    "fb-longer": (3000, 0.4, 400, 4000, None, 0.0, 128),
    "fb-clipped": (3000, 0.4, 400, 4000, 0.25, 0.0, 128),
    "fb-regularized": (3000, 0.8, 400, 4000, 0.25, 0.5, 128),
    "fb-strong": (3000, 0.8, 400, 4000, 0.25, 0.5, 32),
    "fb-practice": (3000, 0.8, 400, 4000, 0.25, 0.5, 32),
}
CHANGES = {
    "sgd-longer": {"steps", "warmup", "horizon"},
    "fb": {"regime"},
    "fb-longer": {"steps", "lr", "warmup", "horizon"},
    "fb-clipped": {"clip"},
    "fb-regularized": {"lr", "penalty"},
    "fb-strong": {"block"},
    "fb-practice": {"shuffle"},
}


def test_the_rows_are_those_of_the_paper_in_its_order():
    assert list(LADDER) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_row_holds_the_settings_of_the_table(name):
    recipe = row(name, "paper")
    values = tuple(
        flag_value(recipe, flag) for flag in ("steps", "lr", "warmup", "horizon", "clip", "penalty", "block")
    )
    assert values == TABLE[name]
    assert recipe.name == name


@pytest.mark.parametrize("name", TABLE)
def test_a_row_holds_the_settings_common_to_all(name):
    recipe = row(name, "paper")
    common = {
        "model": "resnet18", "norm": "batch", "augment": "crop-flip", "padding": 4, "flip": 0.5, "copies": 0,
        "optimizer": "SGD", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "schedule": "cosine",
        "penalty_method": "forward", "penalty_eps": 1e-2, "full_penalty": 0.0, "block_clip": None, "clip_type": "l2",
        "additive_noise": 0.0, "norm_bias": 0.0,
    }  # fmt: skip
    assert {flag: flag_value(recipe, flag) for flag in common} == common
    assert recipe.objective.norm_block in (None, recipe.objective.block)  # batch norm and penalty on the same block


@pytest.mark.parametrize("form", ["paper", "small"])
@pytest.mark.parametrize(("previous", "name"), list(pairwise(TABLE)))
def test_a_row_replaces_in_its_predecessor_exactly_what_the_paper_changes(previous, name, form):
    predecessor = PREDECESSORS.get(name, previous)
    assert set(differences(row(name, form), row(predecessor, form))) == CHANGES[name]


@pytest.mark.parametrize("form", ["paper", "small"])
def test_sgd_longer_is_sgd_in_proportion_with_the_passes_of_the_longest_row(form):
    passes = {name: row(name, form).schedule.steps * passes_a_step(row(name, form)) for name in LADDER}
    assert passes["sgd-longer"] == passes["fb-practice"] == max(passes.values())
    longer, paper = row("sgd-longer", form), row("sgd", "paper")
    assert longer.schedule.horizon == longer.schedule.steps
    assert longer.schedule.warmup == longer.schedule.steps * paper.schedule.warmup // paper.schedule.steps


def test_differences_give_both_values():
    assert differences(row("fb-strong", "paper"), row("fb-regularized", "paper")) == {"block": (128, 32)}


@pytest.mark.parametrize("name", TABLE)
def test_the_small_form_keeps_the_papers_proportions(name):
    paper, small = row(name, "paper"), row(name, "small")
    # a 30th of the steps, of the horizon and (rounded down) of the warm-up; a 4th of the block
    assert small.schedule.steps * 30 == paper.schedule.steps
    assert small.schedule.horizon == paper.schedule.horizon // 30
    assert small.schedule.warmup == paper.schedule.warmup // 30
    assert small.objective.block * 4 == paper.objective.block
    assert all(flag_value(small, flag) == flag_value(paper, flag) for flag in ("lr", "clip", "penalty"))
    assert small.data.padding / 8 == paper.data.padding / 32  # of the image's side
    assert (small.data.name, small.model.name, small.data.flip) == ("digits", "resnet8", 0.0)


def test_an_unknown_row_or_form_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match=r"'fb-regularised'.*did you mean fb-regularized"):
        row("fb-regularised")
    with pytest.raises(ValueError, match=r"'smal'.*did you mean small"):
        row("fb", "smal")


def test_aggregated_is_one_setting_for_all_data_sets_and_no_row_of_the_ladder():
    name = "aggregated"
    assert name in RECIPES
    assert name not in LADDER
    recipes = [row(name, *arguments) for arguments in (("paper",), ("small",), ("small", "mnist-5k"))]
    data_flags = {"data", "model", "steps", "padding", "flip"}
    for first, second in pairwise(recipes):
        assert set(differences(first, second)) <= data_flags
    # no value in it is a number of steps, so that it fits any number
    assert all(
        (recipe.schedule.warmup, recipe.schedule.horizon, recipe.objective.regime) == (0, None, "full-batch")
        for recipe in recipes
    )
