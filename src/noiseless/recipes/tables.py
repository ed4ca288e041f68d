"""The paper's tables as lists of recipes: each is the ladder again, with one thing about data or model replaced.

`augmented` draws augmentations anew at each step. `fixed` takes them away: no augmentation at all, or a set of copies
that is drawn once (every full-batch step sees all copies, a stochastic one visits one). `architectures` repeats the
ladder for other models. (arXiv 2109.14119; which rows stand in `fixed` is as in its published list of runs, so
`sgd-longer`, which is not the paper's, is not among them.)
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
"""the paper's rows, without the one that cuts blocks anew at each step"""


@dataclass(frozen=True)
class Variant:
    """What a part of a table replaces in the rows of the ladder that it has."""

    suffix: str
    """behind the rows' names"""
    rows: tuple[str, ...] = tuple(LADDER)
    changes: Mapping[str, Any] = field(default_factory=dict)


FIXED = (
    Variant("-noaug", ORDERED, {"augment": "none"}),
    Variant("-10x", ORDERED, {"copies": 10}),
    Variant("-40x", ("fb-regularized",), {"copies": 40}),
)
ARCHITECTURES = {
    "paper": ("resnet18", "resnet50", "resnet152", "densenet121", "vgg16"),
    "small": ("resnet8", "resnet20", "vgg11"),
}
"""models of the table, by form"""
TABLES = ("augmented", "fixed", "architectures")


def recipes(
    table: str, form: str, data: str | None = None, models: Sequence[str] = (), rows: Sequence[str] = ()
) -> list[Recipe]:
    """The recipes of a table, in its order.

    Args:
        table: one of `TABLES`.
        form: `"paper"` or `"small"`.
        data: the set; None: the form's.
        models: models for which the table is made; none: the form's one, or for architectures the form's list.
        rows: rows of the ladder; none: all that the table has.

    Returns:
        One recipe for each model and each row of each variant.

    Raises:
        UnknownNameError: for an unknown table or row.
        ValueError: if the table has none of the rows.
    """
    if table not in TABLES:
        raise UnknownNameError("table", table, TABLES)
    for name in rows:
        if name not in LADDER:
            raise UnknownNameError("recipe", name, LADDER)
    chosen: Sequence[str | None] = models or (ARCHITECTURES[form] if table == "architectures" else (None,))
    several = len(chosen) > 1 or table == "architectures"
    variants = FIXED if table == "fixed" else (Variant(""),)
    made = [
        with_flags(
            planned,
            name=planned.name + variant.suffix + (f"-{_slug(model)}" if several and model else ""),
            model=model or planned.model.name,
        )
        for model in chosen
        for variant in variants
        for name in variant.rows
        if not rows or name in rows
        for planned in (with_flags(row(name, form, data), **variant.changes),)
    ]
    if not made:
        raise ValueError(f"the table {table} has none of the rows {', '.join(rows)}; it has {', '.join(ORDERED)}")
    return made


def _slug(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "-", model)
