"""Groups runs of one recipe, which differ only in their seed. This module does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from noiseless.recipes.flags import FLAGS, flag_value
from noiseless.recipes.recipe import Recipe


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

    Args:
        recipes: with the seed 0.

    Returns:
        A name for each recipe.
    """
    shown = []
    for recipe in recipes:
        namesakes = [other for other in recipes if other.name == recipe.name]
        flags = ", ".join(f"{flag} {flag_value(recipe, flag)}" for flag in differing(namesakes))
        shown.append(f"{recipe.name} ({flags})" if flags else recipe.name)
    return shown


def differing(recipes: Sequence[Recipe]) -> list[str]:
    """Names of the flags in which recipes differ."""
    return [flag for flag in FLAGS if len({flag_value(recipe, flag) for recipe in recipes}) > 1]
