"""The data of a figure as CSV: one line for each value, with all its digits. An empty field is a gap."""

from __future__ import annotations

import csv
import io

from noiseless.report.figures import AnyFigure, Curves, Grid

CURVES = ("over", "x", "series", "value", "lowest", "highest")
LEVEL = "level"
"""value of the column `over` in the line of a horizontal line"""


def text(figure: AnyFigure) -> str:
    """The data of a figure as CSV.

    Args:
        figure: the figure.

    Returns:
        The text of the file. Curves have the columns `over, x, series, value, lowest, highest` (`over` is steps or
        passes, the last two are the range of the seeds). A grid has three columns, with the labels of its axes and of
        its values.
    """
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows(_curves(figure) if isinstance(figure, Curves) else _grid(figure))
    return lines.getvalue()


def _curves(figure: Curves) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [CURVES]
    for over, view in figure.views.items():
        for series in view.series:
            empty = [None] * len(series.x)
            columns = series.x, series.y, series.low or empty, series.high or empty
            rows += [(over, x, series.name, *values) for x, *values in zip(*columns, strict=True)]
    return rows + [(LEVEL, None, level.name, level.value, None, None) for level in figure.levels]


def _grid(figure: Grid) -> list[tuple[object, ...]]:
    head = figure.x.label, figure.y.label, figure.value.label
    return [head] + [
        (x, y, value)
        for y, row in zip(figure.ys, figure.z, strict=True)
        for x, value in zip(figure.xs, row, strict=True)
    ]
