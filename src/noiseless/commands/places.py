"""Where runs go if nobody says where."""

from __future__ import annotations

from pathlib import Path

from noiseless.recipes.recipe import Recipe


def run_place(recipe: Recipe) -> Path:
    """The first of runs/NAME, runs/NAME-2, ... that does not exist."""
    name = f"runs/{recipe.name}-{_slug(recipe.data.name)}-{recipe.model.name}-seed{recipe.seed}"
    number = 1
    while (path := Path(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path


def ladder_place(data: str, table: str = "augmented") -> Path:
    """The directory of all runs of a table: it goes on where it stands."""
    return Path(f"runs/reproduce-{_slug(data)}" + ("" if table == "augmented" else f"-{table}"))


def race_place(data: str, pixels: int | None, augment: bool) -> Path:
    """The directory of a race: it goes on where it stands."""
    size = f"-{pixels}px" if pixels else ""
    return Path(f"runs/race-{_slug(data)}{size}{'' if augment else '-noaug'}")


def _slug(data: str) -> str:
    return Path(data.partition(":")[2] or data).stem
