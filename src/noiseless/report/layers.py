"""Layers: the norm of each parameter, its distance from the start, and how much a step moves it."""

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
TEXT = "Each parameter by its name; the profiles are of the last state that was asked of each run."

Layers = dict[str, dict[str, Any]]


def section(summaries: Sequence[Summary]) -> Section:
    """What the runs know of their layers."""
    figures: list[AnyFigure] = [*_distance(summaries)]
    for key, title in SHOWN:
        figures += _profile(key, title, summaries)
    for look, summary in enumerate(summaries):
        for key, title in SHOWN:
            figures += _map(key, title, look, summary)
    return Section("layers", "Layers", TEXT, figures)


def _distance(summaries: Sequence[Summary]) -> list[Curves]:
    """The distance of all parameters together from where they began."""
    answers = [answer for answer in answers_of(summaries, "layers") if answer.values.get("layers")]

    def more(summary: Summary, look: int, over: str) -> list[Series]:
        of_recipe = [answer for answer in answers if answer.look == look]
        x, y = series_over(of_recipe, over, lambda content: _together(content["layers"]))
        return [Series(f"{summary.name}, asked", x, y, look, "points")] if x else []

    quantity = Quantity("layers", "Distance from the start", "distance, L2", of=lambda row: _together(row["layers"]))
    return panel("weight-distance", quantity, summaries, more)


def _together(layers: Layers) -> float | None:
    """`sqrt(sum_l d_l**2)`; None where a layer's distance is not known."""
    distances = [number(values.get("distance")) for values in layers.values()]
    known = [value for value in distances if value is not None]
    return math.hypot(*known) if known and len(known) == len(distances) else None


def _profile(key: str, title: str, summaries: Sequence[Summary]) -> list[Curves]:
    """A quantity of each parameter at the end of each recipe."""
    series = []
    for look, summary in enumerate(summaries):
        seeds: list[Points] = []
        for run in summary.counted:
            layers = _last(look, summary, run)
            seeds.append({name: number(values[key]) for name, values in layers.items() if key in values})
        series += joined(summary.name, look, [points for points in seeds if points], "points")
    values = [y for each in series for y in each.y]
    if all(value is None for value in values):
        return []
    view = {"layer": View(Axis("parameter"), series)}
    axis = Axis(title.lower(), scale(values))
    return [Curves(f"layers-{slug(key)}", f"{title} by layer", axis, view, wide=True)]


def _last(look: int, summary: Summary, run: Run) -> Layers:
    """The layers of a run's last state that was asked, in its rows or later."""
    rows = [row for row in run.rows if row.get("layers")]
    last: tuple[int, Layers] = (rows[-1]["step"] + 1, rows[-1]["layers"]) if rows else (-1, {})
    for answer in answers_of([summary], "layers"):
        if answer.run is run and answer.step > last[0]:
            with checked_values(answer) as values:
                last = answer.step, values["layers"]
    return last[1]


def _map(key: str, title: str, look: int, summary: Summary) -> list[Grid]:
    """A quantity of each parameter over the steps, the mean over the seeds that were asked at the same steps."""
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
    id_ = f"layers-{slug(key)}-{look + 1}-{slug(summary.name)}"
    called = f"{title} by layer over steps: {summary.name}"
    axes = Axis("steps"), Axis("parameter"), Axis(title.lower(), scale(values))
    return [Grid(id_, called, *axes, [float(step) for step in steps], names, z, wide=True)]


def _mean(rows: Sequence[Row], name: str, key: str) -> float | None:
    found = [number(row["layers"].get(name, {}).get(key)) for row in rows]
    known = [value for value in found if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(found) else None
