"""Figures as plotly's JSON, for the page: data and layout of each plot, for each choice of its horizontal axis.

Texts are escaped, as plotly reads a little HTML in them. Lists of numbers are kept once and named by their place, as
curves of one run share their steps; they have six digits, which no screen can tell from all of them.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from noiseless.report.figures import AnyFigure, Curves, Grid, Series, View
from noiseless.report.looks import COLOURS, DARK, DARK_GREY, GREY, colour, marker, rgba

PLACE = "$"
"""key of an object that stands for a list in `Pool.lists`"""
MAP = "Cividis"
"""a map of colours that colour-blind readers see as others do"""
TITLE = 46
"""letters in a line of a title"""
WIDTH, HEIGHT, ROW = 480, 360, 21
"""of a plot without its axis, of a plot, and of a line of its legend, in pixels"""
POINTS = 12
"""markers a line has at most, about"""
FEW, MANY = 5, 300
"""ratios of the largest to the smallest value between which plotly would write too many ticks on a logarithmic axis"""
ALPHA = 0.2
"""of bands"""
LINES = {"line": ("solid", 2), "thin": ("solid", 1), "threshold": ("dash", 1.5)}
TICKS = {
    "gridcolor": "rgba(128,128,128,0.25)",
    "zeroline": False,
    "ticks": "outside",
    "automargin": True,
}
FONT = "system-ui, sans-serif"

PALETTE = {
    **dict(zip(COLOURS, DARK, strict=True)),
    **{rgba(light, ALPHA): rgba(dark, ALPHA + 0.05) for light, dark in zip(COLOURS, DARK, strict=True)},
    GREY: DARK_GREY,
}
"""colours of the light page to those of the dark one"""

Json = dict[str, Any]


class Pool:
    """Lists of numbers, each kept once."""

    def __init__(self) -> None:
        self.lists: list[list[Any]] = []
        self._places: dict[tuple[Any, ...], int] = {}

    def keep(self, values: Sequence[Any]) -> Json:
        """What stands for a list."""
        short = tuple(float(f"{v:.6g}") if isinstance(v, float) else v for v in values)
        if short not in self._places:
            self._places[short] = len(self.lists)
            self.lists.append(list(short))
        return {PLACE: self._places[short]}


def plots(figure: AnyFigure, pool: Pool) -> list[Json]:
    """The plots of a figure: one, and for a landscape the surface as a second.

    Args:
        figure: any.
        pool: takes their numbers.

    Returns:
        Each with `id`, `surface`, `recipes` (whether its series are the recipes, which can be hidden) and `views`,
        which holds `data` and `layout` by the choice of the axis.
    """
    if isinstance(figure, Curves):
        views = {over: _curves(figure, view, pool) for over, view in figure.views.items()}
        return [{"id": f"plot-{figure.id}", "surface": False, "recipes": not figure.legend, "views": views}]
    made = [{"id": f"plot-{figure.id}", "surface": False, "recipes": False, "views": {"": _flat(figure, pool)}}]
    if has_surface(figure):
        views = {"": _surface(figure, pool)}
        made.append({"id": f"surface-{figure.id}", "surface": True, "recipes": False, "views": views})
    return made


def has_surface(figure: AnyFigure) -> bool:
    """Whether it is a landscape with a value somewhere."""
    return isinstance(figure, Grid) and figure.surface and not figure.empty


def _curves(figure: Curves, view: View, pool: Pool) -> Json:
    floor, scale = figure.floor(), figure.y.scale
    data = [trace for series in view.series for trace in _series(series, scale, floor, pool)]
    named: set[str] = set()
    for trace in data:  # the seeds of a recipe have one name
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
        y["dtick"] = "D2"  # 1, 2 and 5 of each decade, as all digits would be on top of each other
    if figure.y.floor is not None:
        largest = max((v for series in view.series for v in series.y if v is not None), default=1.0)
        y["range"] = [math.log10(figure.y.floor), math.log10(largest) + 0.3]
    x: Json = {"title": {"text": escaped(view.x.label)}, "type": view.x.scale}
    if not places:
        x = {"type": "category", "tickangle": -90, "tickfont": {"size": 10}}
    layout = _layout(figure.title) | {
        "xaxis": x, "yaxis": y, "showlegend": figure.legend,
        # where the marks of gaps are: at the bottom, whatever the values
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


def _rows(names: Sequence[str]) -> int:
    """Rows of a legend with these names, about."""
    rows, used = 1, 0.0
    for name in names:
        width = 55 + 6.5 * len(html.unescape(name))
        rows, used = (rows + 1, width) if used and used + width > WIDTH else (rows, used + width)
    return rows


def _series(series: Series, scale: str, floor: float, pool: Pool) -> list[Json]:
    """The traces of a series: band, line or points, and marks at the bottom where nothing can be drawn."""
    own = colour(series.look)
    name = escaped(series.name)
    common: Json = {"type": "scatter", "name": name, "legendgroup": name, "meta": series.look}
    traces: list[Json] = []
    parts = series.band(scale, floor)
    if parts:
        outline: tuple[list[Any], list[Any]] = [], []
        for x, low, high in parts:  # there and back, a hole between parts
            outline[0].extend([*x, *reversed(x), None])
            outline[1].extend([*high, *reversed(low), None])
        traces.append(common | {
            "mode": "lines", "x": pool.keep(outline[0]), "y": pool.keep(outline[1]), "fill": "toself",
            "fillcolor": rgba(own, ALPHA), "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False,
        })  # fmt: skip
    places = [escaped(x) if isinstance(x, str) else x for x in series.x]
    drawn = series.drawn(scale)
    shape = {"color": own, "symbol": marker(series.look)[1], "size": 7}
    line = common | {"x": pool.keep(places), "y": pool.keep(drawn), "connectgaps": False}
    if series.kind == "points":
        traces.append(line | {"mode": "markers", "marker": shape | {"size": 9}})
    else:
        dash, width = LINES[series.kind]
        line |= {"mode": "lines", "line": {"color": own, "width": width, "dash": dash}}
        if series.kind == "line":
            line |= {"mode": "lines+markers", "marker": shape | {"maxdisplayed": POINTS}}
        traces.append(line)
        if lone := series.lone(scale):
            bar = shape | (
                {"symbol": "line-ew", "line": {"color": own, "width": 2}} if series.kind == "threshold" else {}
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
                "marker": {"color": own, "symbol": symbol, "size": 8, "line": {"color": own, "width": 1.5}},
                "x": [escaped(x) if isinstance(x, str) else x for x in where], "y": [0.02] * len(where),
            })  # fmt: skip
    return traces


def _shown(figure: Grid) -> tuple[list[list[float | None]], Json]:
    """What is drawn of a grid, logarithms where its scale has them, and the bar of colours with the values."""
    if figure.value.scale == "linear":
        return [list(row) for row in figure.z], {"title": {"text": escaped(figure.value.label)}}
    z = [[None if v is None or v <= 0 else math.log10(v) for v in row] for row in figure.z]
    known = [v for row in z for v in row if v is not None]
    ticks = [min(known) + share * (max(known) - min(known)) for share in (0, 0.25, 0.5, 0.75, 1)]
    bar = {"tickvals": ticks, "ticktext": [f"{10**tick:.3g}" for tick in ticks]}
    return z, bar | {"title": {"text": escaped(figure.value.label)}}


def _flat(figure: Grid, pool: Pool) -> Json:
    """Contours of a landscape, or the cells of a map; × where there is no value."""
    z, bar = _shown(figure)
    common = {
        "z": [pool.keep(row) for row in z], "colorscale": MAP, "colorbar": bar, "connectgaps": False, "name": "",
        "text": [["" if v is None else f"{v:.5g}" for v in row] for row in figure.z],
        "hovertemplate": "%{x}, %{y}: %{text}", "hoverongaps": False, "meta": None,
    }  # fmt: skip
    if figure.surface:
        trace = common | {
            "type": "contour",
            "hoverongaps": False,
            "x": list(figure.xs),
            "y": list(figure.ys),
            "ncontours": 16,
        }
        x: Json = {"title": {"text": escaped(figure.x.label)}}
        y: Json = {"title": {"text": escaped(figure.y.label)}}
    else:  # cells side by side, whatever their distance
        trace = common | {
            "type": "heatmap",
            "hoverongaps": False,
            "x": [f"{x:g}" for x in figure.xs],
            "y": [_name(y) for y in figure.ys],
        }
        x = {"title": {"text": escaped(figure.x.label)}, "type": "category"}
        y = {"title": {"text": ""}, "type": "category", "autorange": "reversed", "tickfont": {"size": 9}}
    data = [trace]
    if missing := figure.missing:
        data.append({
            "type": "scatter", "mode": "markers", "name": "missing or not finite", "showlegend": False, "meta": None,
            "x": [x if figure.surface else f"{x:g}" for x, _ in missing],
            "y": [y if figure.surface else _name(y) for _, y in missing],
            "marker": {"symbol": "x-thin", "size": 8, "line": {"color": COLOURS[-1], "width": 1.5}},
            "hoverinfo": "x+y+name",
        })  # fmt: skip
    layout = _layout(figure.title) | {"xaxis": x, "yaxis": y, "showlegend": False}
    if not figure.surface:
        layout["height"] = max(360, 14 * len(figure.ys) + 130)
    return {"data": data, "layout": layout}


def _surface(figure: Grid, pool: Pool) -> Json:
    z, bar = _shown(figure)
    trace = {
        "type": "surface", "x": list(figure.xs), "y": list(figure.ys), "z": [pool.keep(row) for row in z],
        "colorscale": MAP, "showscale": False, "connectgaps": False, "name": "",
        "text": [["" if v is None else f"{v:.5g}" for v in row] for row in figure.z],
        "hovertemplate": "%{x}, %{y}: %{text}",
    }  # fmt: skip
    ticks = {key: bar[key] for key in ("tickvals", "ticktext") if key in bar}
    scene: Json = {
        "xaxis": {"title": {"text": escaped(figure.x.label)}}, "yaxis": {"title": {"text": escaped(figure.y.label)}},
        "zaxis": {"title": {"text": escaped(figure.value.label)}, **ticks}, "aspectmode": "cube",
        "camera": {"eye": {"x": 1.6, "y": -1.6, "z": 1.1}, "center": {"x": 0, "y": 0, "z": -0.15}},
    }  # fmt: skip
    layout = _layout(figure.title) | {"scene": scene, "margin": {"l": 0, "r": 0, "t": 46, "b": 0}}
    return {"data": [trace], "layout": layout}


def _layout(title: str) -> Json:
    """Title and margins; a long title has several lines, left of the buttons."""
    lines = [escaped(line) for line in textwrap.wrap(title, TITLE)] or [""]
    place = {"x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 8}}
    margin = {"l": 76, "r": 16, "t": 26 + 20 * len(lines), "b": 54}
    return {"title": {"text": "<br>".join(lines), "font": {"size": 15}, **place}, "margin": margin}


def templates() -> Json:
    """Plotly's templates for the light and the dark page."""
    return {
        "light": _template("#ffffff", "#1a1a1a", GREY, "#cccccc", "#f6f6f6"),
        "dark": _template("#15181c", "#e6e6e6", DARK_GREY, "#4a4f57", "#1b1f24"),
    }


def _template(ground: str, ink: str, lines: str, grid: str, wall: str) -> Json:
    axis = TICKS | {"linecolor": lines, "tickcolor": lines, "title": {"standoff": 8}}
    walls = {"showgrid": True, "gridcolor": grid, "gridwidth": 1, "showbackground": True, "backgroundcolor": wall}
    return {"layout": {
        "paper_bgcolor": ground, "plot_bgcolor": ground, "font": {"color": ink, "family": FONT, "size": 12},
        "xaxis": axis, "yaxis": axis, "scene": {"xaxis": walls, "yaxis": walls, "zaxis": walls},
        "hoverlabel": {"namelength": -1},
    }}  # fmt: skip


def escaped(text: str) -> str:
    """A text in which plotly finds no HTML."""
    return html.escape(text, quote=False)


def _name(value: float | str) -> str:
    return escaped(value) if isinstance(value, str) else f"{value:g}"
