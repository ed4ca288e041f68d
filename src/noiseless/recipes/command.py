"""The `noiseless train` command that repeats a run: the most similar recipe and a flag for each difference."""

from __future__ import annotations

from typing import Any

from noiseless.recipes.config import Config
from noiseless.recipes.flags import FLAGS, flag_value, with_flags
from noiseless.recipes.implied import implied
from noiseless.recipes.ladder import RECIPES, differences, row
from noiseless.recipes.recipe import Recipe

SETTINGS = ("device", "threads", "chunk", "compile")
"""settings on which the last bits of a run may depend"""


def command_of(config: Config) -> list[str]:
    """The command line of a new run with the same recipe and the same `SETTINGS`.

    Args:
        config: of the run, resolved.

    Returns:
        The words of the command, without `--run-dir`: the new run gets another directory.
    """
    recipe, settings = config.recipe, config.settings
    forms = [(name, form) for name in RECIPES for form in ("small", "paper")]
    name, form = min(forms, key=lambda candidate: (len(_flags(recipe, *candidate)), candidate[0] != recipe.name))
    words = ["noiseless", "train", name, "--form", form, "--data", recipe.data.name]
    for field, value in _flags(recipe, name, form).items():
        words += _flag(field, value)
    for field in SETTINGS:
        words += _flag(field, getattr(settings, field))
    return words


def _flags(recipe: Recipe, name: str, form: str) -> dict[str, Any]:
    """The flags that turn a row of this name and form, for the recipe's data, into the recipe: flag -> value."""
    base = row(name, form, recipe.data.name)
    named = {"name": recipe.name} if recipe.name != base.name else {}
    flags = named | {field: value for field, (_, value) in differences(recipe, base).items()}
    return flags | {field: flag_value(recipe, field) for field in implied(base, with_flags(base, **flags), flags)}


def _flag(field: str, value: Any) -> list[str]:
    """The words of one flag."""
    flag = field.replace("_", "-")
    if field in FLAGS and FLAGS[field].type is bool:
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, (tuple, list)):
        return [f"--{flag}", *map(str, value)]
    return [f"--{flag}={value}"]  # one word, because a text may begin with a hyphen
