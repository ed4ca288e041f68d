"""The data of a figure as CSV: a line for each value, with all its digits; an empty field is a gap."""

from __future__ import annotations

import csv
import io

from noiseless.report.figures import AnyFigure, Curves, Grid

CURVES = ("over", "x", "series", "value", "lowest", "highest")
LEVEL = "level"
"""stands in the column `over` for a horizontal line"""


def text(figure: AnyFigure) -> str:
    """A figure's data.

    Args:
        figure: any.

    Returns:
        For curves the columns `over, x, series, value, lowest, highest` (steps or passes, and the range of the seeds);
        for a grid the labels of its axes and of its value.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerows(_curves(figure) if isinstance(figure, Curves) else _grid(figure))
    return written.getvalue()


def _curves(figure: Curves) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [CURVES]
    for over, view in figure.views.items():
        for series in view.series:
            nothing = [None] * len(series.x)
            columns = series.x, series.y, series.low or nothing, series.high or nothing
            rows += [(over, x, series.name, *values) for x, *values in zip(*columns, strict=True)]
    return rows + [(LEVEL, None, level.name, level.value, None, None) for level in figure.levels]


def _grid(figure: Grid) -> list[tuple[object, ...]]:
    head = figure.x.label, figure.y.label, figure.value.label
    return [head] + [
        (x, y, value)
        for y, row in zip(figure.ys, figure.z, strict=True)
        for x, value in zip(figure.xs, row, strict=True)
    ]
