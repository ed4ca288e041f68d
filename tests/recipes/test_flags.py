"""Flags: every field of a recipe has one, which reads and replaces it."""

from dataclasses import fields, is_dataclass

import pytest

from noiseless.errors import UnknownNameError
from noiseless.recipes import parts
from noiseless.recipes.flags import FLAGS, differing, flag_value, flag_values, with_flags
from noiseless.recipes.ladder import RECIPES, row
from noiseless.recipes.recipe import Recipe


def test_each_field_has_one_flag():
    expected = []
    for field in fields(Recipe):
        value = getattr(Recipe(), field.name)
        expected += [(field.name, f.name) for f in fields(value)] if is_dataclass(value) else [(None, field.name)]
    assert [(flag.part, flag.field) for flag in FLAGS.values()] == expected
    others = {"name", "options", "trust"}  # --trust names code
    assert all(name == flag.field for name, flag in FLAGS.items() if flag.field not in others)


@pytest.mark.parametrize("name", RECIPES)
def test_the_flags_of_a_recipe_rebuild_it(name):
    assert with_flags(Recipe(), **flag_values(row(name, "paper"))) == row(name, "paper")


def test_flags_of_several_parts_are_replaced_in_a_copy():
    recipe = Recipe()
    changed = with_flags(
        recipe, seed=3, data="cifar10", padding=2, lr=0.5, optimizer_options="eps=1", schedule="constant"
    )
    assert changed == Recipe(
        seed=3,
        data=parts.Data("cifar10", padding=2),
        optimizer=parts.Optimizer(lr=0.5, options="eps=1"),
        schedule=parts.Schedule(name="constant"),
    )
    assert recipe == Recipe()
    assert (flag_value(changed, "schedule"), flag_value(changed, "seed")) == ("constant", 3)
    assert differing(recipe, with_flags(recipe, lr=0.5, seed=3)) == {"seed": (0, 3), "lr": (0.1, 0.5)}


def test_an_unknown_flag_is_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match=r"unknown flag 'label_smoothin'; did you mean label_smoothing"):
        with_flags(Recipe(), label_smoothin=0.1)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (parts.Data(flip=1.5), "--flip"),
        (parts.Data(validation=1.0), "--validation"),
        (parts.Objective(label_smoothing=-0.1), "--label-smoothing"),
        (parts.Objective(block=33, max_up=2), "--max-up 2"),
        (parts.Transforms(clip_type="max"), "--clip-type max does nothing without --clip"),
        (parts.Transforms(trust=0.1), "--trust-coefficient 0.1 does nothing without --layer-rate"),
        (parts.Optimizer(lr=0.0), "--lr"),
        (parts.Optimizer(weight_decay=float("nan")), "--weight-decay"),
        (parts.Schedule(decay=0.9), "--decay 0.9 does nothing without --schedule exponential"),
        (parts.Evaluation(ema=1.0), "--ema"),
    ],
)
def test_a_part_refuses_invalid_values(part, message):
    with pytest.raises(ValueError, match=message):
        part.check()
    (part_name,) = (f.name for f in fields(Recipe) if f.name == type(part).__name__.lower())
    with pytest.raises(ValueError, match=message):
        Recipe(**{part_name: part}).check()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"regime": "switch", "switch": 9, "steps": 9}, "--switch 9 is never reached in --steps 9"),
        ({"parts": 2, "additive_noise": 0.1}, "--parts 2"),
        ({"rate_by": "update", "layer_rate": "larc"}, "--layer-rate larc"),
        ({"max_up": 2, "copies": 2}, "--copies"),
        ({"max_up": 2, "augment": "none"}, "--augment"),
    ],
)
def test_a_recipe_refuses_parts_that_do_not_go_together(flags, message):
    recipe = with_flags(Recipe(), **flags)
    for part in (recipe.data, recipe.objective, recipe.transforms, recipe.optimizer, recipe.schedule):
        part.check()  # valid by itself
    with pytest.raises(ValueError, match=message):
        recipe.check()
