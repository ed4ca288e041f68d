"""Landscapes along one direction as curves and along two as contours and surfaces; a table of flatness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from noiseless.report.curvature import format_number
from noiseless.report.figures import (
    AnyFigure,
    Axis,
    Curves,
    Grid,
    Section,
    Series,
    Table,
    View,
    number,
    numbers,
    scale,
)
from noiseless.report.run_answers import RunAnswer, answers_of, checked_values, looks
from noiseless.report.seeds import joined
from noiseless.report.summary import Summary

SHOWN = (("loss", "Loss", "training loss"), ("penalised", "Penalised loss", "training loss with penalty"),
         ("accuracy", "Accuracy", "training accuracy"))  # fmt: skip
RATIO = 20.0
"""ratio of the largest to the smallest loss above which a landscape is drawn with logarithms"""
TEXT = (
    "Values of the training loss when the parameters are moved along directions; 0 is the state itself. Crosses mark"
    " points that are missing or not finite."
)
FLATNESS = ("state", "radius", "normalised", "directions", "mean increase", "standard error", "stopped", "passes")


def section(summaries: Sequence[Summary]) -> Section:
    """The section with the landscapes of all runs and the table of their flatness."""
    answers = answers_of(summaries, "landscape")
    axes = [len(answer.values.get("axes") or ()) for answer in answers]
    lines = [answer for answer, count in zip(answers, axes, strict=True) if count == 1]
    planes = [answer for answer, count in zip(answers, axes, strict=True) if count == 2]
    figures = [*_lines(lines), *(grid for order, answer in enumerate(planes) for grid in _grids(order, answer))]
    return Section("landscapes", "Landscapes", TEXT, figures, _flatness(answers_of(summaries, "flatness")))


def _lines(answers: Sequence[RunAnswer]) -> list[AnyFigure]:
    """Landscapes along one direction: one figure for each kind of direction and each quantity."""
    kinds: dict[tuple[str, str, str], list[RunAnswer]] = {}
    for answer in answers:
        with checked_values(answer) as content:
            (axis,) = content["axes"]
            kinds.setdefault((str(axis["label"]), str(axis["kind"]), str(axis.get("normalised"))), []).append(answer)
    figures: list[AnyFigure] = []
    for order, ((label, _, _), group) in enumerate(kinds.items(), 1):
        for key, title, value in SHOWN:
            figures += _line(f"landscape-{order}-{key}", f"{title}: {label}", value, key, label, group)
    return figures


def _line(name: str, title: str, value: str, key: str, label: str, answers: Sequence[RunAnswer]) -> list[Curves]:
    """One quantity along one kind of direction, as the mean and band over the seeds of a recipe at one step."""
    groups: dict[tuple[int, int, str], list[RunAnswer]] = {}
    for answer in answers:
        kind = ", ".join(map(str, (answer.values["axes"][0].get("seed"), answer.values.get("batch_norm"))))
        groups.setdefault((answer.look, answer.step, kind), []).append(answer)
    chosen, legend = looks([group[0] for group in groups.values()])
    names = [f"{group[0].summary.name} @{step}" for (_, step, _), group in groups.items()]
    kinds = [f"direction and batch norm: {kind}" for _, _, kind in groups]
    series = []
    for k, group in enumerate(groups.values()):
        series_name = f"{names[k]}, {kinds[k]}" if names.count(names[k]) > 1 else names[k]
        seeds = []
        for answer in group:
            with checked_values(answer) as content:
                values = content.get(key)
                points = content["axes"][0]["points"]
                pairs = zip(numbers(points), numbers(values), strict=True) if values is not None else ()
                seeds.append(dict(sorted(_known(pairs), key=lambda pair: pair[0])))
        series += joined(series_name, chosen[k], seeds)
    return line_figure(name, title, value, key, label, series, legend, _note_on(answers))


def line_figure(
    name: str, title: str, value: str, key: str, label: str, series: Sequence[Series], legend: bool, note: str = ""
) -> list[Curves]:
    """The figure of one quantity along a direction.

    Args:
        name: id of the figure.
        title: of the figure.
        value: label of the vertical axis.
        key: `loss`, `penalised` or `accuracy`.
        label: of the direction.
        series: the quantity over the coordinate.
        legend: whether the figure needs its own legend.
        note: text below the figure.

    Returns:
        A list with the figure; empty if there is no value to draw.
    """
    values = [y for line in series for y in line.y]
    if all(y is None for y in values):
        return []
    axis = Axis(value, _scale(key, values))
    return [Curves(name, title, axis, {"direction": View(Axis(label), list(series))}, legend=legend, note=note)]


def _scale(key: str, values: Sequence[float | None]) -> Literal["linear", "log"]:
    """The scale of a loss: logarithmic for a large range without values of 0 or less, which a surface cannot mark."""
    positive = all(value is None or value > 0 for value in values)
    return scale(values, RATIO) if positive and key != "accuracy" else "linear"


def _known(pairs: Any) -> list[tuple[float, float | None]]:
    """The pairs whose first number is finite."""
    return [(x, y) for x, y in pairs if x is not None]


def _grids(order: int, answer: RunAnswer) -> list[Grid]:
    """A landscape along two directions: one figure for each quantity."""
    figures = []
    with checked_values(answer) as content:
        first, second = content["axes"]
        xs, ys = ([float(p) for p in axis["points"]] for axis in (first, second))
        for key, title, value in SHOWN:
            if content.get(key) is None:
                continue
            z = [[number(content[key][i][j]) for i in range(len(xs))] for j in range(len(ys))]
            missing = sum(v is None for row in z for v in row)
            note = f"{missing} of {len(xs) * len(ys)} points are missing or not finite. " if missing else ""
            if min(len(xs), len(ys)) < 2:
                note += "There is no surface, because one of the directions has a single point. "
            labels = str(first["label"]), str(second["label"]), value
            figures.append(
                grid_figure(
                    f"landscape-2d-{order + 1}-{key}", f"{title}: {answer.name}", key, labels, xs, ys, z,
                    note + _note_on([answer]),
                )
            )  # fmt: skip
    return figures


def grid_figure(
    name: str, title: str, key: str, labels: tuple[str, str, str], xs: Sequence[float], ys: Sequence[float],
    z: Sequence[Sequence[float | None]], note: str = "",
) -> Grid:  # fmt: skip
    """The figure of one quantity in a plane.

    Args:
        name: id of the figure.
        title: of the figure.
        key: `loss`, `penalised` or `accuracy`.
        labels: of the first direction, the second direction and the quantity.
        xs: coordinates along the first direction, `[n]`.
        ys: coordinates along the second direction, `[m]`.
        z: the quantity, `[m][n]`; None: a gap.
        note: text below the figure.

    Returns:
        The figure.
    """
    x, y, value = labels
    axis = Axis(value, _scale(key, [v for row in z for v in row]))
    return Grid(name, title, Axis(x), Axis(y), axis, xs, ys, z, surface=min(len(xs), len(ys)) > 1, wide=True, note=note)


def _note_on(answers: Sequence[RunAnswer]) -> str:
    """A note on landscapes with missing points and on the mode of batch norm."""
    sentences = [
        f"{answer.name} is unfinished: {answer.values['done']} of {answer.values['total']} points."
        for answer in answers
        if answer.values.get("done", 0) < answer.values.get("total", 0)
    ]
    norms = sorted({str(answer.values["batch_norm"]) for answer in answers if answer.values.get("batch_norm")})
    if norms:
        sentences.append(f"Batch norm mode: {' or '.join(norms)}.")
    return " ".join(sentences)


def _flatness(answers: Sequence[RunAnswer]) -> Table | None:
    rows = []
    for answer in answers:
        with checked_values(answer) as content:
            rows.append((
                answer.name, format_number(content["radius"]), str(content["normalised"]), str(content["directions"]),
                format_number(content["mean_increase"]), format_number(content.get("standard_error")),
                str(content.get("stopped", "-")), format_number(content.get("passes")),
            ))  # fmt: skip
    return Table(FLATNESS, rows) if rows else None
