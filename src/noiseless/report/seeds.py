"""The seeds of one recipe as one curve: their mean, and a band from the smallest to the largest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from noiseless.files.directory import Row
from noiseless.report.figures import PASSES, SECONDS, STEPS, Series, number
from noiseless.report.summary import Run, Summary

Points = dict[Any, float | None]
"""the points of one seed: x -> y, in the order of x; None: y is not finite"""


def column(run: Run, over: str, key: str, of: Callable[[Row], Any] | None = None) -> Points:
    """The points of a quantity of a run, over steps done, passes spent or the seconds that its steps took.

    Args:
        run: the run.
        over: steps, passes or seconds.
        key: column of the record. Rows without it give no point, and no gap.
        of: row -> value; None: the value of the column.

    Returns:
        The points.
    """
    points = {}
    seconds = 0.0
    for row in run.rows:
        seconds += row[SECONDS]
        x = seconds if over == SECONDS else number(place(row, over))
        if key in row and x is not None:
            points[x] = number(row[key] if of is None else of(row))
    return points


def place(row: Row, over: str) -> Any:
    """Place of a row on the axis: at the end of its step."""
    return row["step"] + 1 if over == STEPS else row[PASSES]


def place_of(run: Run, step: int, over: str) -> float | None:
    """Place of a run on the axis after a number of steps; None if its rows lack it."""
    if over == STEPS:
        return float(step)
    if step == 0:
        return 0.0
    if over == SECONDS:
        until = [row[SECONDS] for row in run.rows if row["step"] < step]
        return math.fsum(until) if any(row["step"] + 1 == step for row in run.rows) else None
    return next((number(row[PASSES]) for row in run.rows if row["step"] + 1 == step), None)


def curve(summary: Summary, look: int, over: str, key: str, of: Callable[[Row], Any] | None = None) -> list[Series]:
    """A quantity of a recipe: the runs that have ended as in `joined`, and a thin line for each unfinished run.

    Args:
        summary: the runs of the recipe.
        look: number of the recipe.
        over: steps or passes.
        key: column of the record.
        of: row -> value; None: the value of the column.

    Returns:
        The series; empty if no row has the column, or no value is finite.
    """
    counted = [column(run, over, key, of) for run in summary.counted]
    unfinished_runs = [run for run in summary.runs if run not in summary.counted]
    series = joined(summary.name, look, counted)
    for run in unfinished_runs:
        series += _single(f"{summary.name}, seed {run.seed}, unfinished", look, column(run, over, key, of))
    return series


def joined(
    name: str, look: int | None, seeds: Sequence[Points], kind: Literal["line", "threshold", "points"] = "line"
) -> list[Series]:
    """The mean of several seeds with a band, up to the end of the shortest seed.

    The part of a seed beyond that end is a thin line. If the seeds have values at different places, each is a thin
    line and there is no mean, because it would be over other seeds at each place.

    Args:
        name: of the recipe.
        look: number of the recipe.
        seeds: the points of each seed.
        kind: of the mean.

    Returns:
        The series; empty if no value is finite.
    """
    seeds = [points for points in seeds if any(y is not None for y in points.values())]
    if not seeds:
        return []
    if len(seeds) == 1:
        return [Series(name, list(seeds[0]), list(seeds[0].values()), look, kind)]
    named = any(isinstance(x, str) for points in seeds for x in points)
    end = None if named else min(max(points) for points in seeds)
    shared = [[x for x in points if end is None or x <= end] for points in seeds]
    if any(xs != shared[0] for xs in shared) or not shared[0]:
        return [series for points in seeds for series in _single(name, look, points)]
    values = [[points[x] for points in seeds] for x in shared[0]]
    complete = [None if any(y is None for y in ys) else [y for y in ys if y is not None] for ys in values]
    mean = Series(
        name, shared[0], [None if ys is None else math.fsum(ys) / len(ys) for ys in complete], look, kind,
        low=[None if ys is None else min(ys) for ys in complete],
        high=[None if ys is None else max(ys) for ys in complete],
    )  # fmt: skip
    series = [mean]
    for points, xs in zip(seeds, shared, strict=True):
        if len(points) > len(xs):
            series += _single(name, look, {x: y for x, y in points.items() if x >= xs[-1]})
    return series


def _single(name: str, look: int | None, points: Points) -> list[Series]:
    """A seed as a thin line; empty if no value is finite."""
    if all(y is None for y in points.values()):
        return []
    return [Series(name, list(points), list(points.values()), look, "thin")]
