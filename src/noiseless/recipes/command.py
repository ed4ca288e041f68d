"""The command that makes a run again, from its config: the nearest recipe, a flag for each difference."""

from __future__ import annotations

from typing import Any

from noiseless.recipes.config import Config
from noiseless.recipes.flags import FLAGS
from noiseless.recipes.ladder import RECIPES, differences, row
from noiseless.recipes.recipe import Recipe

SETTINGS = ("device", "threads", "chunk", "compile")
"""settings on which the last bits of a run may depend"""


def command_of(config: Config) -> list[str]:
    """The command line that trains a run with the same recipe, and the same settings as far as bits depend on them.

    Args:
        config: resolved.

    Returns:
        Its words; the new run has a place of its own.
    """
    recipe, settings = config.recipe, config.settings
    forms = [(name, form) for name in RECIPES for form in ("small", "paper")]
    name, form = min(forms, key=lambda each: (len(_flags(recipe, *each)), each[0] != recipe.name))
    words = ["noiseless", "train", name, "--form", form, "--data", recipe.data.name]
    for field, value in _flags(recipe, name, form).items():
        words += _flag(field, value)
    for field in SETTINGS:
        words += _flag(field, getattr(settings, field))
    return words


def _flags(recipe: Recipe, name: str, form: str) -> dict[str, Any]:
    """What must be given beside the name, the form and the data of a row."""
    base = row(name, form, recipe.data.name)
    named = {"name": recipe.name} if recipe.name != base.name else {}
    return named | {field: is_ for field, (_, is_) in differences(recipe, base).items()}


def _flag(field: str, value: Any) -> list[str]:
    flag = field.replace("_", "-")
    if field in FLAGS and FLAGS[field].type is bool:
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, (tuple, list)):
        return [f"--{flag}", *map(str, value)]
    return [f"--{flag}={value}"]  # in one word, as a text may begin with a hyphen
