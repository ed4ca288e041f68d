"""Figures as plotly's JSON, for the page: data and layout of each plot, for each choice of its horizontal axis.

Curves are here and grids in `surfaces`; `themes` has what both use.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from noiseless.report.figures import AnyFigure, Curves, Grid, Series, View
from noiseless.report.looks import colour, marker, rgba
from noiseless.report.surfaces import flat, surface
from noiseless.report.themes import ALPHA, TITLE, WIDE_TITLE, Json, Pool, escaped, layout_of

WIDTH, HEIGHT, ROW = 480, 360, 21
"""width of a plot inside its axes, height of a plot, height of a line of its legend, in pixels"""
POINTS = 12
"""largest number of markers on a line, about"""
FEW, MANY = 5, 300
"""ratios of the largest to the smallest value between which plotly writes too many ticks on a logarithmic axis"""
SAME, MARGIN = 1e-5, 0.1
"""relative difference below which values count as one, and space around it on its axis, relative to the value"""
LINES = {"line": ("solid", 2), "thin": ("solid", 1), "threshold": ("dash", 1.5)}
"""kind of a series -> plotly's dash and width of its line"""


def plots(figure: AnyFigure, pool: Pool) -> list[Json]:
    """The plots of a figure: one, or two for a landscape (contours and surface).

    Args:
        figure: the figure.
        pool: stores the lists of numbers.

    Returns:
        Dictionaries with `id`, `surface`, `recipes` (whether its series belong to recipes, which the reader can hide)
        and `views`, which holds `data` and `layout` for each horizontal axis.
    """
    if isinstance(figure, Curves):
        views = {over: _curves(figure, view, pool) for over, view in figure.views.items()}
        return [{"id": f"plot-{figure.id}", "surface": False, "recipes": not figure.legend, "views": views}]
    grid_plots = [{"id": f"plot-{figure.id}", "surface": False, "recipes": False, "views": {"": flat(figure, pool)}}]
    if has_surface(figure):
        views = {"": surface(figure, pool)}
        grid_plots.append({"id": f"surface-{figure.id}", "surface": True, "recipes": False, "views": views})
    return grid_plots


def has_surface(figure: AnyFigure) -> bool:
    """Whether a figure is a landscape with at least one value."""
    return isinstance(figure, Grid) and figure.surface and not figure.empty


def _curves(figure: Curves, view: View, pool: Pool) -> Json:
    floor, scale = figure.floor(), figure.y.scale
    data = [trace for series in view.series for trace in _series(series, scale, floor, pool)]
    named: set[str] = set()
    for trace in data:  # the seeds of a recipe share one name
        trace["showlegend"] = trace.get("showlegend", True) and trace["name"] not in named
        if trace["showlegend"]:
            named.add(trace["name"])
    places = [x for series in view.series for x in series.x if not isinstance(x, str)]
    if places:
        data += [
            {
                "type": "scatter", "mode": "lines+text", "name": escaped(level.name), "meta": level.look,
                "x": [min(places), max(places)], "y": [level.value] * 2, "text": [escaped(level.name), ""],
                "textposition": "top right", "textfont": {"size": 11},
                "line": {"color": colour(level.look), "dash": "dot", "width": 1.5}, "hoverinfo": "y+name",
            }
            for level in figure.levels
        ]  # fmt: skip
    y: Json = {"title": {"text": escaped(figure.y.label)}, "type": scale, "exponentformat": "power"}
    shown = [v for series in view.series for part in (series.y, series.low or (), series.high or ()) for v in part]
    positive = [v for v in shown if v is not None and v > 0]
    if scale == "log" and FEW < max(positive) / min(positive) < MANY:
        # ticks at 1, 2 and 5 of each decade, as all would overlap; in full: plotly writes the digit alone, 5 for 50
        y |= {"dtick": "D2", "tickformat": "~g"}
    elif scale == "linear" and (ends := _one_value(shown)):
        y["range"] = ends
    if figure.y.floor is not None:
        largest = max((v for series in view.series for v in series.y if v is not None), default=1.0)
        y["range"] = [math.log10(figure.y.floor), math.log10(largest) + 0.3]
    x: Json = {"title": {"text": escaped(view.x.label)}, "type": view.x.scale}
    if not places:
        x = {"type": "category", "tickangle": -90, "tickfont": {"size": 10}}
    layout = layout_of(figure.title, WIDE_TITLE if figure.wide else TITLE) | {
        "xaxis": x, "yaxis": y, "showlegend": figure.legend,
        # for the marks of gaps, at the bottom for any values
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        "hovermode": "closest",
    }  # fmt: skip
    if figure.legend:
        rows = _rows(sorted(named))
        layout["legend"] = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0}
        layout["height"] = HEIGHT + rows * ROW
        layout["margin"] |= {"b": layout["margin"]["b"] + rows * ROW}
    if not places:
        longest = max((len(str(x)) for series in view.series for x in series.x), default=0)
        layout["height"] = layout.get("height", HEIGHT) + 5.5 * longest
        layout["margin"] |= {"b": layout["margin"]["b"] + 5.5 * longest - 20}
    return {"data": data, "layout": layout}


def _one_value(values: Sequence[float | None]) -> list[float] | None:
    """The ends of an axis around values that are one but for rounding, as of a single point; None for others."""
    known = [value for value in values if value is not None]
    if not known or max(known) - min(known) > SAME * max(map(abs, known)):
        return None
    margin = MARGIN * abs(known[0]) or 1.0
    return [known[0] - margin, known[0] + margin]


def _rows(names: Sequence[str]) -> int:
    """Estimated number of rows of a legend with these names."""
    rows, used = 1, 0.0
    for name in names:
        width = 55 + 6.5 * len(html.unescape(name))
        rows, used = (rows + 1, width) if used and used + width > WIDTH else (rows, used + width)
    return rows


def _series(series: Series, scale: str, floor: float, pool: Pool) -> list[Json]:
    """The traces of a series: band, line or points, and marks at the bottom for values that cannot be drawn."""
    color = colour(series.look)
    name = escaped(series.name)
    common: Json = {"type": "scatter", "name": name, "legendgroup": name, "meta": series.look}
    traces: list[Json] = []
    parts = series.band(scale, floor)
    if parts:
        outline: tuple[list[Any], list[Any]] = [], []
        for x, low, high in parts:  # along the upper edge and back along the lower one, None between parts
            outline[0].extend([*x, *reversed(x), None])
            outline[1].extend([*high, *reversed(low), None])
        traces.append(common | {
            "mode": "lines", "x": pool.keep(outline[0]), "y": pool.keep(outline[1]), "fill": "toself",
            "fillcolor": rgba(color, ALPHA), "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
        })  # fmt: skip
    places = [escaped(x) if isinstance(x, str) else x for x in series.x]
    drawn = series.drawn(scale)
    shape = {"color": color, "symbol": marker(series.look)[1], "size": 7}
    line = common | {"x": pool.keep(places), "y": pool.keep(drawn), "connectgaps": False}
    if series.kind == "points":
        bars = series.bars(scale, floor)
        spread = {"type": "data", "symmetric": False, "color": color, "thickness": 1.5, "width": 3}
        if bars:
            spread |= {"arrayminus": [below for below, _ in bars], "array": [above for _, above in bars]}
            line["error_y"] = spread
        traces.append(line | {"mode": "markers", "marker": shape | {"size": 9}})
    else:
        dash, width = LINES[series.kind]
        line |= {"mode": "lines", "line": {"color": color, "width": width, "dash": dash}}
        if series.kind == "line":
            line |= {"mode": "lines+markers", "marker": shape | {"maxdisplayed": POINTS}}
        traces.append(line)
        if lone := series.lone(scale):
            bar = shape | (
                {"symbol": "line-ew", "line": {"color": color, "width": 2}} if series.kind == "threshold" else {}
            )
            traces.append(common | {
                "mode": "markers", "marker": bar, "showlegend": False,
                "x": [places[k] for k in lone], "y": [drawn[k] for k in lone],
            })  # fmt: skip
    for where, symbol, why in (
        (series.gaps, "x-thin", "not finite"),
        (series.below(scale), "triangle-down-open", "0 or less"),
    ):
        if where and series.kind != "threshold":
            traces.append(common | {
                "mode": "markers", "yaxis": "y2", "showlegend": False, "hovertext": why, "hoverinfo": "x+text+name",
                "marker": {"color": color, "symbol": symbol, "size": 8, "line": {"color": color, "width": 1.5}},
                "x": [escaped(x) if isinstance(x, str) else x for x in where], "y": [0.02] * len(where),
            })  # fmt: skip
    return traces
