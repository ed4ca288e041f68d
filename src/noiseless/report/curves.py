"""Curves of what every row of a run holds, over steps and over passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from noiseless.files.columns import COLUMNS
from noiseless.files.directory import Row
from noiseless.report.figures import OVER, Axis, Curves, Level, Section, Series, View, number, scale
from noiseless.report.seeds import curve
from noiseless.report.summary import Summary

TEXT = (
    "Lines are means over the seeds of a recipe, bands reach from the smallest to the largest seed. Thin lines are"
    " single seeds: those of runs that have not ended, and where seeds went different ways. At the bottom of a figure a"
    " cross marks a value that is not finite, and an open triangle one of 0 or less, for which a logarithmic axis has"
    " no place."
)


@dataclass(frozen=True)
class Quantity:
    """What a panel shows."""

    key: str
    """of the rows that have it"""
    title: str
    label: str
    log: bool = False
    of: Callable[[Row], Any] | None = None
    """from a row; None: the value under the key"""


ACCURACY = {
    "test-accuracy": Quantity(
        "test_accuracy", "Test accuracy", "test accuracy, %", of=lambda row: _percent(row["test_accuracy"], 0)
    ),
    "test-error": Quantity(
        "test_accuracy", "Test error", "test error, %", True, lambda row: _percent(row["test_accuracy"], 100)
    ),
}
"""by the figure's id"""


def _panels() -> dict[str, Quantity]:
    """Figure's id -> what it shows: accuracy and error, then the columns that have a figure."""
    figures = {
        key.replace("_", "-"): Quantity(key, column.title, column.axis, column.log)
        for key, column in sorted(COLUMNS.items(), key=lambda item: item[1].label_rank)
        if column.title is not None
    }
    return ACCURACY | figures


def section(summaries: Sequence[Summary]) -> Section:
    """The curves of recipes; a panel for which no run has a value is left out."""
    figures = []
    for name, quantity in _panels().items():
        levels = clips(summaries) if name == "gradient-norm" else []
        figures += panel(name, quantity, summaries, levels=levels, zeros=name != "penalty")
    return Section("curves", "Curves", TEXT, figures)


def panel(
    name: str,
    quantity: Quantity,
    summaries: Sequence[Summary],
    more: Callable[[Summary, int, str], list[Series]] | None = None,
    levels: Sequence[Level] = (),
    zeros: bool = True,
    note: str = "",
) -> list[Curves]:
    """The figure of one quantity.

    Args:
        name: its id.
        quantity: what it shows.
        summaries: of the recipes.
        more: further series of a recipe with its look, over steps or passes: answers that were asked at single steps.
        levels: horizontal lines.
        zeros: whether a recipe for which it is 0 throughout is drawn.
        note: said under it.

    Returns:
        It alone, or nothing where there is nothing to be seen.
    """
    views = {}
    for over in OVER:
        series = []
        for look, summary in enumerate(summaries):
            found = curve(summary, look, over, quantity.key, quantity.of)
            if zeros or any(y for each in found for y in each.y):
                series += found
            series += more(summary, look, over) if more else []
        views[over] = View(Axis(over), series)
    values = [y for view in views.values() for each in view.series for y in each.y]
    if all(value is None for value in values):
        return []
    shown = scale(values) if quantity.log else "linear"
    return [Curves(name, quantity.title, Axis(quantity.label, shown), views, list(levels), note=note)]


def clips(summaries: Sequence[Summary]) -> list[Level]:
    """The L2 norms to which recipes clip the full gradient, one line for those that agree."""
    looks: dict[float, list[int]] = {}
    for look, summary in enumerate(summaries):
        recipe = summary.runs[0].recipe
        if recipe.transforms.clip is not None and recipe.transforms.clip_type == "l2":
            looks.setdefault(recipe.transforms.clip, []).append(look)
    return [
        Level(value, f"clip {value:g}", found[0] if len(found) == 1 else None) for value, found in sorted(looks.items())
    ]


def _percent(accuracy: Any, whole: float) -> float | None:
    share = number(accuracy)
    return None if share is None else abs(whole - 100 * share)
