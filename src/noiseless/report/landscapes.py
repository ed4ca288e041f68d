"""Landscapes: along one direction as curves, along two as contours and a surface; the flatness of the place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from noiseless.report.curvature import shown
from noiseless.report.figures import AnyFigure, Axis, Curves, Grid, Section, Table, View, number, numbers, scale
from noiseless.report.run_answers import RunAnswer, answers_of, checked_values, looks
from noiseless.report.seeds import joined
from noiseless.report.summary import Summary

SHOWN = (("loss", "Loss", "training loss"), ("penalised", "Penalised loss", "training loss with penalty"),
         ("accuracy", "Accuracy", "training accuracy"))  # fmt: skip
RATIO = 20.0
"""of the largest to the smallest loss, from which on a landscape is drawn with logarithms"""
TEXT = (
    "The training loss where the parameters are moved along directions, with the state at 0. Crosses mark points that"
    " are missing or not finite."
)
FLATNESS = ("state", "radius", "normalised", "directions", "mean increase", "standard error", "stopped", "passes")


def section(summaries: Sequence[Summary]) -> Section:
    """All landscapes of the runs, and what their flatness comes to."""
    answers = answers_of(summaries, "landscape")
    axes = [len(answer.values.get("axes") or ()) for answer in answers]
    lines = [answer for answer, count in zip(answers, axes, strict=True) if count == 1]
    planes = [answer for answer, count in zip(answers, axes, strict=True) if count == 2]
    figures = [*_lines(lines), *(grid for number, answer in enumerate(planes) for grid in _grids(number, answer))]
    return Section("landscapes", "Landscapes", TEXT, figures, _flatness(answers_of(summaries, "flatness")))


def _lines(answers: Sequence[RunAnswer]) -> list[AnyFigure]:
    """Curves of all runs along directions of one kind, in one figure for each quantity."""
    kinds: dict[tuple[str, str, str], list[RunAnswer]] = {}
    for answer in answers:
        with checked_values(answer) as content:
            (axis,) = content["axes"]
            kinds.setdefault((str(axis["label"]), str(axis["kind"]), str(axis.get("normalised"))), []).append(answer)
    figures: list[AnyFigure] = []
    for order, ((label, _, _), alike) in enumerate(kinds.items(), 1):
        for key, title, value in SHOWN:
            figures += _line(f"landscape-{order}-{key}", f"{title}: {label}", value, key, label, alike)
    return figures


def _line(name: str, title: str, value: str, key: str, label: str, answers: Sequence[RunAnswer]) -> list[Curves]:
    """One quantity along one kind of direction; the seeds of a recipe at one step are a mean with a band."""
    groups: dict[tuple[int, int, str], list[RunAnswer]] = {}
    for answer in answers:
        kind = ", ".join(map(str, (answer.values["axes"][0].get("seed"), answer.values.get("batch_norm"))))
        groups.setdefault((answer.look, answer.step, kind), []).append(answer)
    chosen, legend = looks([alike[0] for alike in groups.values()])
    names = [f"{alike[0].summary.name} @{step}" for (_, step, _), alike in groups.items()]
    kinds = [f"direction and batch norm: {kind}" for _, _, kind in groups]
    series = []
    for k, alike in enumerate(groups.values()):
        called = f"{names[k]}, {kinds[k]}" if names.count(names[k]) > 1 else names[k]
        seeds = []
        for answer in alike:
            with checked_values(answer) as content:
                values = content.get(key)
                points = content["axes"][0]["points"]
                pairs = zip(numbers(points), numbers(values), strict=True) if values is not None else ()
                seeds.append(dict(sorted(_known(pairs), key=lambda pair: pair[0])))
        series += joined(called, chosen[k], seeds)
    values = [y for each in series for y in each.y]
    if all(y is None for y in values):
        return []
    axis = Axis(value, _scale(key, values))
    view = {"direction": View(Axis(label), series)}
    return [Curves(name, title, axis, view, legend=legend, note=_unfinished(answers))]


def _scale(key: str, values: Sequence[float | None]) -> Literal["linear", "log"]:
    """Logarithmic where a loss differs much, and is positive throughout: a surface can mark nothing."""
    positive = all(value is None or value > 0 for value in values)
    return scale(values, RATIO) if positive and key != "accuracy" else "linear"


def _known(pairs: Any) -> list[tuple[float, float | None]]:
    return [(x, y) for x, y in pairs if x is not None]


def _grids(order: int, answer: RunAnswer) -> list[Grid]:
    """One landscape over two directions: a figure for each quantity."""
    figures = []
    with checked_values(answer) as content:
        first, second = content["axes"]
        xs, ys = ([float(p) for p in axis["points"]] for axis in (first, second))
        for key, title, value in SHOWN:
            if content.get(key) is None:
                continue
            z = [[number(content[key][i][j]) for i in range(len(xs))] for j in range(len(ys))]
            known = [v for row in z for v in row]
            log = _scale(key, known)
            lacking = sum(v is None for v in known)
            note = f"{lacking} of {len(known)} points are missing or not finite. " if lacking else ""
            if min(len(xs), len(ys)) < 2:
                note += "One of its directions has a single point: that is no surface. "
            figures.append(Grid(
                f"landscape-2d-{order + 1}-{key}", f"{title}: {answer.name}", Axis(str(first["label"])),
                Axis(str(second["label"])), Axis(value, log), xs, ys, z, surface=min(len(xs), len(ys)) > 1, wide=True,
                note=note + _unfinished([answer]),
            ))  # fmt: skip
    return figures


def _unfinished(answers: Sequence[RunAnswer]) -> str:
    """Says which landscapes were stopped before all points were asked, and how batch norm was."""
    told = [
        f"{answer.name} is unfinished: {answer.values['done']} of {answer.values['total']} points."
        for answer in answers
        if answer.values.get("done", 0) < answer.values.get("total", 0)
    ]
    norms = sorted({str(answer.values["batch_norm"]) for answer in answers if answer.values.get("batch_norm")})
    if norms:
        told.append(f"Batch norm's statistics: {' or '.join(norms)}.")
    return " ".join(told)


def _flatness(answers: Sequence[RunAnswer]) -> Table | None:
    rows = []
    for answer in answers:
        with checked_values(answer) as content:
            rows.append((
                answer.name, shown(content["radius"]), str(content["normalised"]), str(content["directions"]),
                shown(content["mean_increase"]), shown(content.get("standard_error")), str(content.get("stopped", "-")),
                shown(content.get("passes")),
            ))  # fmt: skip
    return Table(FLATNESS, rows) if rows else None
