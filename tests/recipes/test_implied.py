"""What flags imply for others, and names in their spelling."""

from __future__ import annotations

import inspect

import pytest
import torch

from noiseless.commands.arguments import parse_config
from noiseless.optim import optimizer_names
from noiseless.optim.registry import optimizer_entry
from noiseless.recipes.flags import flag_values
from noiseless.recipes.implied import USUAL_RATES
from noiseless.recipes.ladder import RECIPES, row


def recipe(*arguments):
    return parse_config([str(argument) for argument in arguments], "train", "", data="digits").config.recipe


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("form", ["small", "paper"])
def test_without_flags_a_recipe_is_as_written(name, form):
    data = "digits" if form == "small" else "cifar10"
    assert recipe(name, "--form", form, "--data", data) == row(name, form, data)


def test_steps_alone_scale_warm_up_and_horizon():
    # fb-clipped in its small form: 100 steps, 13 of warm-up, a horizon of 133; 13 * 0.3 = 3.9 and 133 * 0.3 = 39.9
    schedule = recipe("fb-clipped", "--steps", 30).schedule
    assert (schedule.steps, schedule.warmup, schedule.horizon) == (30, 4, 40)
    schedule = recipe("fb-clipped", "--steps", 1000).schedule
    assert (schedule.steps, schedule.warmup, schedule.horizon) == (1000, 130, 1330)
    schedule = recipe("fb-clipped", "--steps=1").schedule
    assert (schedule.steps, schedule.warmup, schedule.horizon) == (1, 0, 1)


def test_what_is_given_is_not_scaled():
    schedule = recipe("fb-clipped", "--steps", 30, "--warmup", 2).schedule
    assert (schedule.warmup, schedule.horizon) == (2, 40)
    schedule = recipe("fb-clipped", "--steps", 30, "--horizon", "None", "--warmup=5").schedule
    assert (schedule.warmup, schedule.horizon) == (5, None)


def test_durations_may_be_shares_of_the_steps():
    schedule = recipe("fb-clipped", "--warmup", "10%", "--steps", 60, "--horizon=150%").schedule
    assert (schedule.warmup, schedule.horizon) == (6, 90)
    assert recipe("fb-clipped", "--warmup", "12.5%").schedule.warmup == 12  # of its 100 steps, to the even one
    config = parse_config(["fb", "--steps", "40", "--keep-every", "25%"], "train", "", data="digits").config
    assert config.settings.keep_every == 10
    with pytest.raises(ValueError, match=r"--lr takes no share of the steps, such as 10%: give a number"):
        recipe("fb", "--lr", "10%")


@pytest.mark.parametrize(("flags", "rate"), [
    (("--optimizer", "AdamW"), 1e-3), (("--optimizer", "adamw"), 1e-3), (("--optimizer", "AdamW", "--lr", 0.4), 0.4),
    (("--optimizer", "SGD"), 0.4), ((), 0.4),
])  # fmt: skip
def test_an_optimizer_brings_its_usual_rate_unless_one_is_given(flags, rate):
    assert recipe("fb-clipped", *flags).optimizer.lr == rate


def test_names_get_their_spelling():
    values = flag_values(recipe("FB", "--optimizer", "adamw", "--model", "ResNet-18", "--data", "MNIST_5k"))
    assert (values["optimizer"], values["model"], values["data"]) == ("AdamW", "resnet18", "mnist-5k")
    assert flag_values(recipe("fb", "--loss", "Cross_Entropy", "--policy", "RAND"))["loss"] == "cross-entropy"
    assert values["padding"] == 3  # of mnist-5k, whose recipe is small


def test_every_optimizer_has_a_usual_rate_which_is_torchs_but_for_a_few():
    assert set(USUAL_RATES) >= set(optimizer_names())
    for name, rate in USUAL_RATES.items():
        default = inspect.signature(optimizer_entry(name).kind).parameters["lr"].default
        default = float(default) if isinstance(default, (int, float, torch.Tensor)) else default
        assert rate == default or name in ("SGD", "FISTA", "Muon"), (name, default)
