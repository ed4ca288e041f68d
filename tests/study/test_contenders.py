"""Contenders: their recipes on a course, and grids of equal size for all of them."""

from itertools import pairwise

import pytest

from noiseless.data import Extent
from noiseless.recipes.flags import differing, flag_value, with_flags
from noiseless.recipes.ladder import LADDER, row
from noiseless.run.work import passes_a_step
from noiseless.study.contenders import CONTENDERS, SIZES, USUAL, Course, select

DIGITS = Course("digits", Extent(512, 1285, (1, 8, 8), 10))
CIFAR = Course("cifar10", Extent(50_000, 10_000, (3, 32, 32), 10))


def test_a_row_that_is_another_with_more_passes_does_not_race():
    assert set(LADDER) - set(CONTENDERS) == {"sgd-longer"}  # with a budget it would be sgd


@pytest.mark.parametrize("name", [name for name in LADDER if name in CONTENDERS])
def test_the_papers_rows_on_cifar_with_the_papers_passes_are_the_papers(name):
    contender = CONTENDERS[name]
    budget = int(contender.recipe.schedule.steps * passes_a_step(contender.recipe))
    recipe = CIFAR.recipe(contender, budget)
    assert recipe.name == f"{name}-{budget}"
    assert {**vars(recipe), "name": name} == vars(row(name, "paper"))


def test_steps_fit_the_budget_and_the_schedule_the_steps():
    recipe = DIGITS.recipe(CONTENDERS["fb-regularized"], 61)  # two passes a step
    # 30 of the paper's 3000 steps: a hundredth of its warm-up and horizon
    assert (recipe.schedule.steps, recipe.schedule.warmup, recipe.schedule.horizon) == (30, 4, 40)
    # no mirrored digits; a border of an eighth of the image's side
    assert (recipe.data.flip, recipe.data.padding, recipe.model.name) == (0.0, 1, "resnet8")
    assert Course("mnist-5k", Extent(1000, 4000, (1, 28, 28), 10)).recipe(CONTENDERS["sgd"], 30).data.padding == 3


@pytest.mark.parametrize("course", [DIGITS, CIFAR])
@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "aggregated"])
def test_every_grid_has_the_same_size_and_logarithmic_rates(course, name):
    contender = CONTENDERS[name]
    grid = course.grid(contender, 60, 5)
    sizes = SIZES["small" if course is DIGITS else "paper"]
    assert len(grid) == 5 * len(sizes)
    assert [flag_value(recipe, contender.size) for recipe in grid] == [size for size in sizes for _ in range(5)]
    rates = [recipe.optimizer.lr for recipe in grid[:5]]
    assert rates[2] == course.recipe(contender, 60).optimizer.lr
    assert [b / a for a, b in pairwise(rates)] == pytest.approx([2] * 4)
    decays = [[recipe.optimizer.weight_decay for recipe in grid[k : k + 5]] for k in (0, 5, 10)]
    if contender.group == "paper":
        assert {decay for values in decays for decay in values} == {5e-4}
    else:  # each size and each rate has all of them
        assert all(set(values) == set(contender.decays) for values in (*decays, *zip(*decays, strict=True)))
        assert len(contender.decays) == 3
    for recipe in grid:  # norm blocks divide blocks
        assert recipe.objective.block % (recipe.objective.norm_block or recipe.objective.block) == 0


def test_a_contender_with_one_setting_for_all_data_sets_has_no_grid():
    for course in (DIGITS, CIFAR):
        (only,) = course.grid(CONTENDERS["aggregated"], 60, 5)
        ours = row("aggregated", "small" if course is DIGITS else "paper", course.data)
        for name in ("optimizer", "optimizer_options", "lr", "momentum", "weight_decay", "block", "norm_block"):
            assert flag_value(only, name) == flag_value(ours, name)


def test_without_augmentation_nothing_else_changes():
    plain = Course("digits", DIGITS.extent, augment=False)
    for name in USUAL:
        recipe, other = plain.recipe(CONTENDERS[name], 60), DIGITS.recipe(CONTENDERS[name], 60)
        assert set(differing(recipe, other)) == {"augment"}


def test_a_loss_of_the_users_own_is_that_of_all_contenders_and_smooths_by_itself():
    course = Course("digits", DIGITS.extent, loss="my_things:margin")
    for name in USUAL:
        recipe, other = course.recipe(CONTENDERS[name], 60), DIGITS.recipe(CONTENDERS[name], 60)
        recipe.objective.check()
        assert recipe.objective.loss == "my_things:margin"
        assert set(differing(recipe, other)) == {"loss"} | ({"label_smoothing"} if name == "aggregated" else set())


def test_aggregated_in_a_race_is_the_recipe():
    for augment in ("crop-flip", "none"):
        recipe = Course("digits", DIGITS.extent, augment=augment != "none").recipe(CONTENDERS["aggregated"], 60)
        assert recipe == with_flags(row("aggregated"), name="aggregated-60", augment=augment)


def test_the_usual_contenders_differ():
    recipes = [with_flags(DIGITS.recipe(contender, 60), name="") for contender in select(())]
    assert all(one != other for k, one in enumerate(recipes) for other in recipes[:k])


def test_aggregated_is_no_full_batch_contender():
    groups = {name: contender.group for name, contender in CONTENDERS.items()}
    assert [name for name, group in groups.items() if group == "full-batch"] == ["fb-adamw", "fb-muon"]
    assert [name for name, group in groups.items() if group == "aggregated"] == ["aggregated"]
