"""Layers: the norm of each parameter tensor, its distance from the start, its gradient and its update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from noiseless.files.directory import Row
from noiseless.report.curves import Quantity, panel
from noiseless.report.figures import AnyFigure, Axis, Curves, Grid, Section, Series, View, number, scale, slug
from noiseless.report.run_answers import answers_of, checked_values, series_over
from noiseless.report.seeds import Points, joined
from noiseless.report.summary import Run, Summary

SHOWN = (("norm", "Norm"), ("distance", "Distance from the start"), ("gradient_norm", "Gradient norm"),
         ("update_ratio", "Update-to-weight ratio"))  # fmt: skip
TEXT = "Figures by layer show each parameter by its name, at the last state of each run that has values."

Layers = dict[str, dict[str, Any]]
"""name of a parameter -> its values by name: `norm`, `distance`, `gradient_norm`, `update_ratio`"""


def section(summaries: Sequence[Summary]) -> Section:
    """The section about layers."""
    figures: list[AnyFigure] = [*_distance(summaries)]
    for key, title in SHOWN:
        figures += _profile(key, title, summaries)
    for look, summary in enumerate(summaries):
        for key, title in SHOWN:
            figures += _map(key, title, look, summary)
    return Section("layers", "Layers", TEXT, figures)


def _distance(summaries: Sequence[Summary]) -> list[Curves]:
    """The distance of all parameters together from their initial values."""
    answers = [answer for answer in answers_of(summaries, "layers") if answer.values.get("layers")]

    def more(summary: Summary, look: int, over: str) -> list[Series]:
        of_recipe = [answer for answer in answers if answer.look == look]
        x, y = series_over(of_recipe, over, lambda content: _distance_of_all(content["layers"]))
        return [Series(f"{summary.name}, single states", x, y, look, "points")] if x else []

    title = "Distance from the start"
    quantity = Quantity("layers", title, "distance, L2", of=lambda row: _distance_of_all(row["layers"]))
    return panel("weight-distance", quantity, summaries, more)


def _distance_of_all(layers: Layers) -> float | None:
    """`sqrt(sum_l d_l**2)` over the layers l; None if a distance is unknown."""
    distances = [number(values.get("distance")) for values in layers.values()]
    known = [value for value in distances if value is not None]
    return math.hypot(*known) if known and len(known) == len(distances) else None


def _profile(key: str, title: str, summaries: Sequence[Summary]) -> list[Curves]:
    """A quantity of each parameter, at the last state of each run of a recipe."""
    series = []
    for look, summary in enumerate(summaries):
        seeds: list[Points] = []
        for run in summary.counted:
            layers = _last(look, summary, run)
            seeds.append({name: number(values[key]) for name, values in layers.items() if key in values})
        series += joined(summary.name, look, [points for points in seeds if points], "points")
    values = [y for line in series for y in line.y]
    if all(value is None for value in values):
        return []
    view = {"layer": View(Axis("parameter"), series)}
    axis = Axis(title.lower(), scale(values))
    return [Curves(f"layers-{slug(key)}", f"{title} by layer", axis, view, wide=True)]


def _last(look: int, summary: Summary, run: Run) -> Layers:
    """The layers at the last state of a run that has values, from its rows or its answers."""
    rows = [row for row in run.rows if row.get("layers")]
    last: tuple[int, Layers] = (rows[-1]["step"] + 1, rows[-1]["layers"]) if rows else (-1, {})
    for answer in answers_of([summary], "layers"):
        if answer.run is run and answer.step > last[0]:
            with checked_values(answer) as values:
                last = answer.step, values["layers"]
    return last[1]


def _map(key: str, title: str, look: int, summary: Summary) -> list[Grid]:
    """A quantity of each parameter over the steps at which all seeds have values: the mean over the seeds."""
    runs = [[row for row in run.rows if row.get("layers")] for run in summary.counted]
    steps = sorted(set.intersection(*({row["step"] + 1 for row in rows} for rows in runs)))
    if len(steps) < 2:
        return []
    at_step = [[row for rows in runs for row in rows if row["step"] + 1 == step] for step in steps]
    names = [name for name, values in at_step[0][0]["layers"].items() if key in values]
    z = [[_mean(rows, name, key) for rows in at_step] for name in names]
    values = [value for row in z for value in row]
    if all(value is None for value in values):
        return []
    figure_id = f"layers-{slug(key)}-{look + 1}-{slug(summary.name)}"
    figure_title = f"{title} by layer over steps: {summary.name}"
    axes = Axis("steps"), Axis("parameter"), Axis(title.lower(), scale(values))
    return [Grid(figure_id, figure_title, *axes, [float(step) for step in steps], names, z, wide=True)]


def _mean(rows: Sequence[Row], name: str, key: str) -> float | None:
    """The mean of a parameter's quantity over the rows; None if a row lacks it."""
    values = [number(row["layers"].get(name, {}).get(key)) for row in rows]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
