"""Configs by the names of their flags: the one place in the tests that knows which part of a config holds a field."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import FLAGS, with_flags
from noiseless.recipes.recipe import Recipe


def config(**values: Any) -> Config:
    """The default config with these values."""
    return Config(
        with_flags(Recipe(), **{name: value for name, value in values.items() if name in FLAGS}),
        Settings(**{name: value for name, value in values.items() if name not in FLAGS}),
    )


def check_values(**values: Any) -> None:
    """Checks the default config with these values, as the program does before it reads any data."""
    config(**values).check()


def numbers() -> set[str]:
    """The names of all flags that take a number, or a number or none."""
    kinds = {name: flag.type for name, flag in FLAGS.items()} | get_type_hints(Settings)
    return {name for name, kind in kinds.items() if {kind, *get_args(kind)} & {int, float}}
