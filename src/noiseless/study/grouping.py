"""Runs of one recipe: those that are equal but for their seed. Torch is not needed here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from noiseless.recipes.flags import FLAGS, flag_value
from noiseless.recipes.recipe import Recipe


class WithRecipe(Protocol):
    """A run, as far as grouping needs it."""

    @property
    def recipe(self) -> Recipe:
        """Its recipe, resolved."""

    @property
    def path(self) -> Path:
        """Its directory, for errors."""


R = TypeVar("R", bound=WithRecipe)


def by_recipe(runs: Iterable[R]) -> dict[Recipe, list[R]]:
    """Groups runs that differ in nothing but their seed, in the order of first appearance.

    Args:
        runs: each recipe with each seed at most once.

    Returns:
        The runs of each recipe; the keys have the seed 0.

    Raises:
        ValueError: if a recipe is there twice with the same seed, which would pass for two seeds.
    """
    groups: dict[Recipe, dict[int, R]] = {}
    for run in runs:
        recipe, seed = replace(run.recipe, seed=0), run.recipe.seed
        seeds = groups.setdefault(recipe, {})
        if seed in seeds:
            raise ValueError(
                f"{seeds[seed].path} and {run.path} are the same recipe with the same seed {seed}, so one says nothing"
                " that the other does not: give one of them"
            )
        seeds[seed] = run
    return {recipe: list(seeds.values()) for recipe, seeds in groups.items()}


def names(recipes: Sequence[Recipe]) -> list[str]:
    """The recipes' names; where several have one name, each with the flags in which they differ behind it.

    Args:
        recipes: with the seed 0.

    Returns:
        A name a recipe.
    """
    shown = []
    for recipe in recipes:
        alike = [other for other in recipes if other.name == recipe.name]
        own = ", ".join(f"{name} {flag_value(recipe, name)}" for name in differing(alike))
        shown.append(f"{recipe.name} ({own})" if own else recipe.name)
    return shown


def differing(recipes: Sequence[Recipe]) -> list[str]:
    """The flags in which recipes differ."""
    return [flag for flag in FLAGS if len({flag_value(recipe, flag) for recipe in recipes}) > 1]
