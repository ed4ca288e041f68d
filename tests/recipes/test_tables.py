"""The paper's tables as lists of recipes."""

import pytest

from noiseless.errors import UnknownNameError
from noiseless.recipes.ladder import LADDER, differences, row
from noiseless.recipes.tables import ARCHITECTURES, recipes


@pytest.mark.parametrize("form", ["paper", "small"])
def test_augmented_is_the_ladder(form):
    assert recipes("augmented", form) == [row(name, form) for name in LADDER]


def test_fixed_takes_the_fresh_augmentations_away():
    found = {each.name: each for each in recipes("fixed", "paper")}
    # the paper's table of fixed sets has neither new blocks at each step nor longer SGD
    without_order = [name for name in LADDER if name not in ("sgd-longer", "fb-practice")]
    assert list(found) == [f"{n}-noaug" for n in without_order] + [f"{n}-10x" for n in without_order] + [
        "fb-regularized-40x"
    ]
    for name, recipe in found.items():
        plain, _, suffix = name.rpartition("-")
        changed = {"noaug": {"augment"}, "10x": {"copies"}, "40x": {"copies"}}[suffix]
        assert differences(recipe, row(plain, "paper")).keys() == changed
    assert found["fb-noaug"].data.augment == "none"
    assert (found["fb-10x"].data.copies, found["fb-regularized-40x"].data.copies) == (10, 40)
    assert found["sgd-10x"].objective.regime == "stochastic"  # which visits one copy a step


@pytest.mark.parametrize("form", ["paper", "small"])
def test_architectures_is_the_ladder_for_each_model(form):
    found = recipes("architectures", form)
    assert [each.model.name for each in found] == [model for model in ARCHITECTURES[form] for _ in LADDER]
    assert len({each.name for each in found}) == len(found)
    assert all(differences(each, row(each.name.rpartition("-")[0], form)).keys() <= {"model"} for each in found)


def test_rows_data_and_models_are_chosen():
    (one,) = recipes("augmented", "small", "mnist-5k", ["resnet20"], ["fb"])
    assert (one.name, one.data.name, one.model.name, one.data.padding) == ("fb", "mnist-5k", "resnet20", 3)
    two = recipes("fixed", "small", "digits", ["resnet8", "timm:x.y"], ["fb-regularized"])
    assert [each.name for each in two] == [
        f"fb-regularized-{part}-{model}" for model in ("resnet8", "timm-x-y") for part in ("noaug", "10x", "40x")
    ]


def test_what_there_is_not_is_told():
    with pytest.raises(UnknownNameError, match="did you mean fixed"):
        recipes("fixd", "small")
    with pytest.raises(UnknownNameError, match="did you mean fb-clipped"):
        recipes("fixed", "small", rows=["fb-cliped"])
    with pytest.raises(ValueError, match="none of the rows fb-practice"):
        recipes("fixed", "small", rows=["fb-practice"])
