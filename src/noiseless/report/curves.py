"""Curves of the columns of a run's record, over passes, steps and seconds."""

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
    "Lines are means over the seeds of a recipe. Bands reach from the smallest to the largest seed. Thin lines are"
    " single seeds: runs that have not ended, and runs whose steps or passes differ from those of other seeds. At the"
    " bottom of a figure a cross marks a value that is not finite. An open triangle marks a value of 0 or less, which a"
    " logarithmic axis cannot show."
)


@dataclass(frozen=True)
class Quantity:
    """A quantity that a figure shows."""

    key: str
    """column of the record; rows without it are left out"""
    title: str
    label: str
    log: bool = False
    of: Callable[[Row], Any] | None = None
    """row -> value; None: the value of the column"""


ACCURACY = {
    "train-accuracy": Quantity(
        "train_accuracy",
        "Training accuracy, before each step",
        "training accuracy, %",
        of=lambda row: _percent(row["train_accuracy"], 0),
    ),
    "test-accuracy": Quantity(
        "test_accuracy", "Test accuracy", "test accuracy, %", of=lambda row: _percent(row["test_accuracy"], 0)
    ),
    "test-error": Quantity(
        "test_accuracy", "Test error", "test error, %", True, lambda row: _percent(row["test_accuracy"], 100)
    ),
}
"""id of a figure -> its quantity"""


def _panels() -> dict[str, Quantity]:
    """Id of a figure -> its quantity: accuracy and error, then the columns with a figure."""
    figures = {
        key.replace("_", "-"): Quantity(key, column.title, column.axis, column.log)
        for key, column in sorted(COLUMNS.items(), key=lambda item: item[1].label_rank)
        if column.title is not None
    }
    trained = {"train-accuracy": ACCURACY["train-accuracy"]}
    return {name: q for name, q in ACCURACY.items() if name not in trained} | figures | trained


def section(summaries: Sequence[Summary]) -> Section:
    """The curves of all recipes. Figures for which no run has a value are left out."""
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
        name: id of the figure.
        quantity: what the figure shows.
        summaries: the runs by recipe.
        more: (summary, look, axis) -> further series of a recipe, such as answers at single steps.
        levels: horizontal lines.
        zeros: whether a recipe is drawn if all its values are 0.
        note: text below the figure.

    Returns:
        A list with the figure; empty if there is no value to draw.
    """
    views = {}
    for over in OVER:
        series = []
        for look, summary in enumerate(summaries):
            of_recipe = curve(summary, look, over, quantity.key, quantity.of)
            if zeros or any(y for line in of_recipe for y in line.y):
                series += of_recipe
            series += more(summary, look, over) if more else []
        views[over] = View(Axis(over), series)
    values = [y for view in views.values() for line in view.series for y in line.y]
    if all(value is None for value in values):
        return []
    axis = Axis(quantity.label, scale(values) if quantity.log else "linear")
    return [Curves(name, quantity.title, axis, views, list(levels), note=note)]


def clips(summaries: Sequence[Summary]) -> list[Level]:
    """Horizontal lines at the L2 norms to which recipes clip the full gradient, one line for equal norms."""
    looks: dict[float, list[int]] = {}
    for look, summary in enumerate(summaries):
        recipe = summary.runs[0].recipe
        if recipe.transforms.clip is not None and recipe.transforms.clip_type == "l2":
            looks.setdefault(recipe.transforms.clip, []).append(look)
    return [
        Level(value, f"clip {value:g}", with_clip[0] if len(with_clip) == 1 else None)
        for value, with_clip in sorted(looks.items())
    ]


def _percent(accuracy: Any, reference: float) -> float | None:
    """Distance of an accuracy from a reference, in %: 0 for the accuracy itself, 100 for the error."""
    share = number(accuracy)
    return None if share is None else abs(reference - 100 * share)
