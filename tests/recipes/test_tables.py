"""The paper's tables as lists of recipes."""

import pytest

from noiseless.errors import UnknownNameError
from noiseless.recipes.ladder import LADDER, differences, row
from noiseless.recipes.tables import ARCHITECTURES, recipes


@pytest.mark.parametrize("form", ["paper", "small"])
def test_augmented_is_the_ladder(form):
    assert recipes("augmented", form) == [row(name, form) for name in LADDER]


def test_fixed_is_the_ladder_without_fresh_augmentation():
    table = {r.name: r for r in recipes("fixed", "paper")}
    # the paper's table of fixed sets has neither new blocks at each step nor longer SGD
    without_order = [name for name in LADDER if name not in ("sgd-longer", "fb-practice")]
    assert list(table) == [f"{n}-noaug" for n in without_order] + [f"{n}-10x" for n in without_order] + [
        "fb-regularized-40x"
    ]
    for name, recipe in table.items():
        plain, _, suffix = name.rpartition("-")
        changed = {"noaug": {"augment"}, "10x": {"copies"}, "40x": {"copies"}}[suffix]
        assert differences(recipe, row(plain, "paper")).keys() == changed
    assert table["fb-noaug"].data.augment == "none"
    assert (table["fb-10x"].data.copies, table["fb-regularized-40x"].data.copies) == (10, 40)
    assert table["sgd-10x"].objective.regime == "stochastic"  # which visits one copy a step


@pytest.mark.parametrize("form", ["paper", "small"])
def test_architectures_is_the_ladder_for_each_model(form):
    table = recipes("architectures", form)
    assert [recipe.model.name for recipe in table] == [model for model in ARCHITECTURES[form] for _ in LADDER]
    assert len({recipe.name for recipe in table}) == len(table)
    assert all(differences(recipe, row(recipe.name.rpartition("-")[0], form)).keys() <= {"model"} for recipe in table)


def test_rows_data_and_models_can_be_chosen():
    (recipe,) = recipes("augmented", "small", "mnist-5k", ["resnet20"], ["fb"])
    assert (recipe.name, recipe.data.name, recipe.model.name, recipe.data.padding) == ("fb", "mnist-5k", "resnet20", 3)
    fixed = recipes("fixed", "small", "digits", ["resnet8", "timm:x.y"], ["fb-regularized"])
    assert [r.name for r in fixed] == [
        f"fb-regularized-{part}-{model}" for model in ("resnet8", "timm-x-y") for part in ("noaug", "10x", "40x")
    ]


def test_unknown_tables_and_missing_rows_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean fixed"):
        recipes("fixd", "small")
    with pytest.raises(UnknownNameError, match="did you mean fb-clipped"):
        recipes("fixed", "small", rows=["fb-cliped"])
    with pytest.raises(ValueError, match="none of the rows fb-practice"):
        recipes("fixed", "small", rows=["fb-practice"])
