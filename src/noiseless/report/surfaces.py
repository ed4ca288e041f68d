"""Grids as plotly's JSON: landscapes as contours and as surfaces, maps as cells."""

from __future__ import annotations

import math

from noiseless.report.figures import Grid
from noiseless.report.looks import BLACK
from noiseless.report.themes import TITLE, WIDE_TITLE, Json, Pool, escaped, layout_of

MAP = "Cividis"
"""a colour map that colour-blind readers see like other readers"""
CONTOURS = 15
"""number of contour intervals, of equal width on the scale of the values"""


def _scaled(figure: Grid) -> tuple[list[list[float | None]], Json]:
    """The values to draw (logarithms if the scale is logarithmic), and the colour bar."""
    if figure.value.scale == "linear":
        return [list(row) for row in figure.z], {"title": {"text": escaped(figure.value.label)}}
    z = [[None if v is None or v <= 0 else math.log10(v) for v in row] for row in figure.z]
    known = [v for row in z for v in row if v is not None]
    ticks = [min(known) + share * (max(known) - min(known)) for share in (0, 0.25, 0.5, 0.75, 1)]
    bar = {"tickvals": ticks, "ticktext": [f"{10**tick:.3g}" for tick in ticks]}
    return z, bar | {"title": {"text": escaped(figure.value.label)}}


def flat(figure: Grid, pool: Pool) -> Json:
    """Contours of a landscape, or cells of a map. A cross marks a point without a value."""
    z, bar = _scaled(figure)
    common = {
        "z": [pool.keep(row) for row in z], "colorscale": MAP, "colorbar": bar, "connectgaps": False, "name": "",
        "text": [["" if v is None else f"{v:.5g}" for v in row] for row in figure.z],
        "hovertemplate": "%{x}, %{y}: %{text}", "hoverongaps": False, "meta": None,
    }  # fmt: skip
    if figure.surface:
        trace = common | {"type": "contour", "x": list(figure.xs), "y": list(figure.ys)}
        known = [v for row in z for v in row if v is not None]
        if known and min(known) < max(known):
            width = (max(known) - min(known)) / CONTOURS
            levels = {"start": min(known) + width, "end": max(known) - width / 2, "size": width}
            trace |= {"autocontour": False, "contours": levels}
        x: Json = {"title": {"text": escaped(figure.x.label)}}
        y: Json = {"title": {"text": escaped(figure.y.label)}}
    else:  # cells of equal size, whatever the distances
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
            "marker": {"symbol": "x-thin", "size": 8, "line": {"color": BLACK, "width": 1.5}},
            "hoverinfo": "x+y+name",
        })  # fmt: skip
    layout = layout_of(figure.title, TITLE if figure.surface else WIDE_TITLE) | {
        "xaxis": x,
        "yaxis": y,
        "showlegend": False,
    }
    if not figure.surface:
        layout["height"] = max(360, 14 * len(figure.ys) + 130)
    return {"data": data, "layout": layout}


def surface(figure: Grid, pool: Pool) -> Json:
    """A landscape as a surface that the reader can turn."""
    z, bar = _scaled(figure)
    trace = {
        "type": "surface", "x": list(figure.xs), "y": list(figure.ys), "z": [pool.keep(row) for row in z],
        "colorscale": MAP, "showscale": False, "connectgaps": False, "name": "",
        "text": [["" if v is None else f"{v:.5g}" for v in row] for row in figure.z],
        "hovertemplate": "%{x}, %{y}: %{text}",
    }  # fmt: skip
    ticks = {key: bar[key] for key in ("tickvals", "ticktext") if key in bar}
    small = {"size": 10}
    scene: Json = {
        "xaxis": {"title": {"text": escaped(figure.x.label), "font": small}},
        "yaxis": {"title": {"text": escaped(figure.y.label), "font": small}},
        "zaxis": {"title": {"text": escaped(figure.value.label), "font": small}, **ticks}, "aspectmode": "cube",
        "camera": {"eye": {"x": 1.75, "y": -1.75, "z": 1.2}, "center": {"x": 0, "y": 0, "z": -0.15}},
    }  # fmt: skip
    layout = layout_of(figure.title) | {"scene": scene, "margin": {"l": 0, "r": 0, "t": 46, "b": 0}}
    return {"data": [trace], "layout": layout}


def _name(value: float | str) -> str:
    return escaped(value) if isinstance(value, str) else f"{value:g}"
