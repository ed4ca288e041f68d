"""Groups runs of one recipe, which differ only in their seed. This module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from noiseless.recipes.checks import printable_text
from noiseless.recipes.flags import FLAGS, flag_value
from noiseless.recipes.recipe import Recipe

DERIVED: Mapping[str, tuple[str, ...]] = {
    "data": ("mean", "std"), "steps": ("warmup", "horizon"), "block": ("norm_block",), "regime": ("shuffle",),
    "compat": ("mean", "std", "drop_last", "statistics"),
}  # fmt: skip
"""flag -> flags that often follow from it"""


LONGEST = 24
"""characters of a value in a short name"""


class WithRecipe(Protocol):
    """What grouping needs of a run."""

    @property
    def recipe(self) -> Recipe:
        """Its recipe, resolved."""

    @property
    def path(self) -> Path:
        """Its directory, for errors."""


R = TypeVar("R", bound=WithRecipe)


def by_recipe(runs: Iterable[R]) -> dict[Recipe, list[R]]:
    """Groups runs that differ only in their seed, in the order of first appearance.

    Args:
        runs: at most one for each recipe and seed.

    Returns:
        The runs of each recipe; the keys have the seed 0.

    Raises:
        ValueError: if two runs have the same recipe and the same seed, which would count as two seeds.
    """
    groups: dict[Recipe, dict[int, R]] = {}
    for run in runs:
        recipe, seed = replace(run.recipe, seed=0), run.recipe.seed
        seeds = groups.setdefault(recipe, {})
        if seed in seeds:
            raise ValueError(
                f"{seeds[seed].path} and {run.path} are the same recipe with the same seed {seed}, and would count as"
                " two seeds: give one of them"
            )
        seeds[seed] = run
    return {recipe: list(seeds.values()) for recipe, seeds in groups.items()}


def names(recipes: Sequence[Recipe]) -> list[str]:
    """Names recipes; where several have the same name, the flags in which they differ are added to it.

    Paths are shortened to the name of their file. Flags that follow from others that differ, and values that most of
    them have, are left out, as long as the names stay different.

    Args:
        recipes: with the seed 0.

    Returns:
        A name for each recipe.
    """
    short = [_name(recipe, recipes, True) for recipe in recipes]
    return short if len(set(short)) == len(short) else [_name(recipe, recipes, False) for recipe in recipes]


def labelled(labels: Sequence[str], recipes: Sequence[Recipe]) -> list[str]:
    """The labels that a user gives recipes, or their `names` if there are none.

    Args:
        labels: empty, or one for each recipe.
        recipes: with the seed 0.

    Returns:
        A name for each recipe.

    Raises:
        ValueError: if there are more or fewer labels than recipes, or two are the same.
    """
    if not labels:
        return names(recipes)
    if len(labels) != len(recipes) or len(set(labels)) < len(labels):
        named = "; ".join(names(recipes))
        raise ValueError(
            f"--label needs a label of its own for each of the {len(recipes)} recipes ({named}), not {len(labels)}:"
            f" {', '.join(labels)}"
        )
    for label in labels:
        printable_text("label", label)
    return list(labels)


def _name(recipe: Recipe, recipes: Sequence[Recipe], short: bool) -> str:
    """The name of a recipe among others."""
    namesakes = [other for other in recipes if other.name == recipe.name]
    flags = differing(namesakes)
    if short:
        derived = {flag for source, follows in DERIVED.items() if source in flags for flag in follows}
        usual = {
            flag: sum(flag_value(other, flag) == flag_value(recipe, flag) for other in namesakes) for flag in flags
        }
        flags = [flag for flag in flags if flag not in derived and 2 * usual[flag] <= len(namesakes)]
    values = ", ".join(f"{flag} {_value(flag_value(recipe, flag), short)}" for flag in flags)
    return f"{recipe.name} ({values})" if values else recipe.name


def _value(value: object, short: bool) -> str:
    """A value in a name; the path of `npz:PATH` and the like is shortened to the name of its file."""
    if isinstance(value, float) and short:
        return f"{value:g}"
    text = str(value)
    text = Path(text.rpartition(":")[2] or text).stem if short and "/" in text else text
    return f"{text[:15]}...{text[-6:]}" if short and len(text) > LONGEST else text


def differing(recipes: Sequence[Recipe]) -> list[str]:
    """Names of the flags in which recipes differ."""
    return [flag for flag in FLAGS if len({flag_value(recipe, flag) for recipe in recipes}) > 1]
