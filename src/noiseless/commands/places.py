"""Default directories of runs, tables and races."""

from __future__ import annotations

from pathlib import Path

from noiseless.errors import shown
from noiseless.recipes.recipe import Recipe

LONGEST_NAME = 100
"""characters of a recipe's name as a part of a path"""


def run_place(recipe: Recipe) -> Path:
    """First of `runs/RECIPE-DATA-MODEL-seedSEED`, the same with `-2`, `-3`, ... that does not exist.

    Returns:
        The path.

    Raises:
        ValueError: if the name of the recipe cannot be a part of it.
    """
    if "/" in recipe.name or recipe.name.strip(". ") == "" or len(recipe.name) > LONGEST_NAME:
        raise ValueError(
            f"--name must be at most {LONGEST_NAME} characters without a slash, as it is a part of the run's path, not"
            f" {shown(repr(recipe.name))}; or give --run-dir"
        )
    model = recipe.model.name.replace("/", "-")
    name = f"runs/{recipe.name}-{slug(recipe.data.name)}-{model}-seed{recipe.seed}"
    number = 1
    while (path := Path(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path


def ladder_place(data: str, table: str = "augmented") -> Path:
    """Directory of all runs of a table; a second command continues there."""
    return Path(f"runs/reproduce-{slug(data)}" + ("" if table == "augmented" else f"-{table}"))


def race_place(data: str, pixels: int | None, augment: bool) -> Path:
    """Directory of a race; a second command continues there."""
    size = f"-{pixels}px" if pixels else ""
    return Path(f"runs/race-{slug(data)}{size}{'' if augment else '-noaug'}")


def slug(data: str) -> str:
    """Name of a data set for a path: of `npz:FILE` and `folder:PATH`, the file name without its suffix."""
    return Path(data.partition(":")[2] or data).stem
