"""The command that reproduces a run: parsed, it gives the same recipe and settings."""

from __future__ import annotations

import pytest

from noiseless.commands.arguments import parse_config
from noiseless.recipes.command import command_of
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import LADDER, published, row
from noiseless.recipes.recipe import Recipe

OTHERS = (
    Recipe(),
    with_flags(row("fb-clipped"), lr=0.3, clip=None, shuffle=False, momentum=None, nesterov=None),
    with_flags(
        row("sgd", "paper", "npz:a b/c.npz"), decay_biases=False, zero_init=True, drop_last=True, name="-odd 'name'"
    ),
    with_flags(
        row("fb"), optimizer="Adam", optimizer_options="betas=(0.8,0.9),eps=1e-7", weight_decay=None, penalty_eps=1e-3
    ),
    with_flags(
        row("fb"), mean=(0.1, 1 / 3, 2e-9), std=(1.0, 2.0, 3.0), init="-file", norm_target=1.5, horizon=None, switch=3
    ),
    published(row("fb-practice", "paper", "cifar100")),
)


@pytest.mark.parametrize("recipe", [row(name, form) for name in LADDER for form in ("small", "paper")] + list(OTHERS))
@pytest.mark.parametrize("settings", [Settings(), Settings(threads=2, chunk=8, compile="off", device="cuda:1")])
def test_the_command_gives_the_same_recipe_and_settings(recipe, settings):
    program, command, *words = command_of(Config(recipe, settings))
    assert (program, command) == ("noiseless", "train")
    assert parse_config(words, "train", "", data="digits").config == Config(recipe, settings)


def test_the_command_of_a_ladder_row_is_short():
    words = command_of(Config(row("fb-longer"), Settings(threads=1, chunk=4, compile="off")))
    expected = "noiseless train fb-longer --form small --data digits --device=cpu --threads=1 --chunk=4 --compile=off"
    assert words == expected.split()
