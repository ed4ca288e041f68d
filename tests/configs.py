"""Configs by the names of their flags: the one place in the tests that knows which part of a config holds a field."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_type_hints

from noiseless.recipes.config import Config, Settings, check
from noiseless.recipes.recipe import Recipe


def config(**values: Any) -> Config:
    """The default config with these values."""
    recipe = {f.name for f in fields(Recipe)}
    return Config(
        Recipe(**{name: value for name, value in values.items() if name in recipe}),
        Settings(**{name: value for name, value in values.items() if name not in recipe}),
    )


def check_values(**values: Any) -> None:
    """Checks the default config with these values, as the program does before it reads any data."""
    changed = config(**values)
    check(changed.recipe, changed.settings)


def numbers() -> set[str]:
    """The names of all fields that hold a number, or a number or none."""
    kinds = get_type_hints(Recipe) | get_type_hints(Settings)
    return {name for name, kind in kinds.items() if {kind, *get_args(kind)} & {int, float}}
