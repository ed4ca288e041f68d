"""The paper's tables as lists of recipes: each table is the ladder with one thing about data or model replaced.

`augmented` draws new augmentations at each step. `fixed` has no fresh augmentation: none at all, or a set of copies
that is drawn once (a full-batch step covers all copies, a stochastic step covers one). `architectures` repeats the
ladder for other models. (arXiv 2109.14119. The rows of `fixed` are those of the paper's published list of runs, which
does not have `sgd-longer`.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from noiseless.errors import UnknownNameError
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import LADDER, row
from noiseless.recipes.recipe import Recipe

ORDERED = tuple(name for name in LADDER if name not in ("sgd-longer", "fb-practice"))
"""the paper's rows, without the one that cuts new blocks at each step"""


@dataclass(frozen=True)
class Variant:
    """A part of a table: rows of the ladder with the same changes."""

    suffix: str
    """appended to the rows' names"""
    rows: tuple[str, ...] = tuple(LADDER)
    """names of the rows"""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """flag -> value"""


FIXED = (
    Variant("-noaug", ORDERED, {"augment": "none"}),
    Variant("-10x", ORDERED, {"copies": 10}),
    Variant("-40x", ("fb-regularized",), {"copies": 40}),
)
ARCHITECTURES = {
    "paper": ("resnet18", "resnet50", "resnet152", "densenet121", "vgg16"),
    "small": ("resnet8", "resnet20", "vgg11"),
}
"""models of the table `architectures`, by form"""
TABLES = ("augmented", "fixed", "architectures")


def recipes(
    table: str, form: str, data: str | None = None, models: Sequence[str] = (), rows: Sequence[str] = ()
) -> list[Recipe]:
    """The recipes of a table, in its order.

    Args:
        table: one of `TABLES`.
        form: `"paper"` or `"small"`.
        data: the data set; None: that of the form.
        models: names of models; empty: the model of the form, or for `architectures` the form's list.
        rows: names of rows; empty: all rows of the table.

    Returns:
        One recipe for each model and each row of each variant.

    Raises:
        UnknownNameError: for an unknown table or row.
        ValueError: if the table has none of these rows.
    """
    if table not in TABLES:
        raise UnknownNameError("table", table, TABLES)
    for name in rows:
        if name not in LADDER:
            raise UnknownNameError("recipe", name, LADDER)
    chosen: Sequence[str | None] = models or (ARCHITECTURES[form] if table == "architectures" else (None,))
    several = len(chosen) > 1 or table == "architectures"
    variants = FIXED if table == "fixed" else (Variant(""),)
    listed = [
        with_flags(
            recipe,
            name=recipe.name + variant.suffix + (f"-{_slug(model)}" if several and model else ""),
            model=model or recipe.model.name,
        )
        for model in chosen
        for variant in variants
        for name in variant.rows
        if not rows or name in rows
        for recipe in (with_flags(row(name, form, data), **variant.changes),)
    ]
    if not listed:
        raise ValueError(f"the table {table} has none of the rows {', '.join(rows)}; it has {', '.join(ORDERED)}")
    return listed


def _slug(model: str) -> str:
    """The model's name with a hyphen for each character that a recipe's name should not have."""
    return re.sub(r"[^A-Za-z0-9_]", "-", model)
