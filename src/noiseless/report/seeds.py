"""Seeds of one recipe as one curve: their mean, and a band from the smallest to the largest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from noiseless.files.directory import Row
from noiseless.report.figures import PASSES, STEPS, Series, number
from noiseless.report.summary import Run, Summary

Points = dict[Any, float | None]
"""what one seed has: x -> y, in the order of x; None where y is not finite"""


def column(run: Run, over: str, key: str, of: Callable[[Row], Any] | None = None) -> Points:
    """A quantity of a run's rows, over steps done or over passes spent.

    Args:
        run: whose rows they are.
        over: steps or passes.
        key: rows without it were not asked for the quantity: they are no gaps.
        of: the quantity of a row; None: the value under the key.

    Returns:
        Its points.
    """
    points = {}
    for row in run.rows:
        x = number(place(row, over))
        if key in row and x is not None:
            points[x] = number(row[key] if of is None else of(row))
    return points


def place(row: Row, over: str) -> Any:
    """Where a row stands: once its step is done."""
    return row["step"] + 1 if over == STEPS else row[PASSES]


def place_of(run: Run, step: int, over: str) -> float | None:
    """Where a run stands after a number of steps; None if its rows do not say."""
    if over == STEPS:
        return float(step)
    if step == 0:
        return 0.0
    return next((number(row[PASSES]) for row in run.rows if row["step"] + 1 == step), None)


def curve(summary: Summary, look: int, over: str, key: str, of: Callable[[Row], Any] | None = None) -> list[Series]:
    """A quantity of a recipe's rows, as `joined` has it; runs that stopped short of others' end are lines of their own.

    Args:
        summary: of the recipe.
        look: its number.
        over: steps or passes.
        key: of the rows.
        of: the quantity of a row; None: the value under the key.

    Returns:
        The series; none where no row has the key, or no value is finite.
    """
    counted = [column(run, over, key, of) for run in summary.counted]
    short = [run for run in summary.runs if run not in summary.counted]
    made = joined(summary.name, look, counted)
    for run in short:
        made += _single(f"{summary.name}, seed {run.seed}, unfinished", look, column(run, over, key, of))
    return made


def joined(
    name: str, look: int | None, seeds: Sequence[Points], kind: Literal["line", "threshold", "points"] = "line"
) -> list[Series]:
    """Seeds as a mean with a band, as far as all of them have values at the same places.

    What a seed has beyond the shortest one is a line of its own, and so is every seed where places differ: a mean over
    other seeds at each place would be a picture of who is there.

    Args:
        name: of the recipe.
        look: its number.
        seeds: the points of each.
        kind: of the mean.

    Returns:
        The series; none where no value is finite.
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
    whole = [None if any(y is None for y in ys) else [y for y in ys if y is not None] for ys in values]
    mean = Series(
        name, shared[0], [None if ys is None else math.fsum(ys) / len(ys) for ys in whole], look, kind,
        low=[None if ys is None else min(ys) for ys in whole], high=[None if ys is None else max(ys) for ys in whole],
    )  # fmt: skip
    made = [mean]
    for points, before in zip(seeds, shared, strict=True):
        if len(points) > len(before):
            made += _single(name, look, {x: y for x, y in points.items() if x >= before[-1]})
    return made


def _single(name: str, look: int | None, points: Points) -> list[Series]:
    if all(y is None for y in points.values()):
        return []
    return [Series(name, list(points), list(points.values()), look, "thin")]
