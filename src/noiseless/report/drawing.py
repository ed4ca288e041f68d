"""Figures as files: PNG and SVG by matplotlib, and their data as CSV."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from noiseless.files.atomic import write_bytes
from noiseless.report import sheets
from noiseless.report.figures import AnyFigure, Curves, Grid, Series, View
from noiseless.report.looks import colour, marker

POINTS = 12
"""largest number of markers on a line, about"""
FEW = 8
"""largest number of places on a logarithmic axis that have ticks of their own"""
APART = 1.2
"""smallest ratio of two neighbouring ticks"""
LINES = {"line": ("-", 1.8), "thin": ("-", 0.8), "threshold": ("--", 1.2), "points": ("none", 0.0)}
"""kind of a series -> style and width of its line"""
COLOURS = "cividis"
"""a colour map that colour-blind readers see like other readers"""
FORMATS = ("png", "svg", "csv")


def write(directory: Path, figures: Sequence[AnyFigure], over: str) -> list[Path]:
    """Writes each figure as PNG, SVG and CSV.

    Args:
        directory: created if it does not exist.
        figures: with different ids.
        over: steps, passes or seconds, for figures that have these. The CSV file has all in any case.

    Returns:
        Paths of the files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for figure in figures:
        drawing = draw(figure, over)
        contents = {"png": encode(drawing, "png"), "svg": encode(drawing, "svg"), "csv": sheets.text(figure).encode()}
        for suffix in FORMATS:
            paths.append(directory / f"{figure.id}.{suffix}")
            write_bytes(paths[-1], contents[suffix])
    return paths


def encode(drawing: Figure, kind: str) -> bytes:
    """A drawing as PNG or SVG. The same figure gives the same bytes."""
    file = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "noiseless"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a missing letter is drawn as a box
        drawing.savefig(file, format=kind, metadata=metadata, dpi=150)
    return file.getvalue()


def draw(figure: AnyFigure, over: str) -> Figure:
    """Draws a figure.

    Args:
        figure: the figure.
        over: steps, passes or seconds, for a figure that has these.

    Returns:
        The drawing, ready to be saved.
    """
    if isinstance(figure, Curves):
        return _curves(figure, figure.view(over))
    return _landscape(figure) if figure.surface and not figure.empty else _map(figure)


def draw_on(ax: Axes, figure: AnyFigure) -> None:
    """Draws a figure in axes of the caller's, with a legend if it has several series.

    Args:
        ax: the axes; a landscape in axes of matplotlib's "3d" projection is a surface, in others it is contours.
        figure: curves over a single horizontal axis, or a landscape.
    """
    if isinstance(figure, Curves):
        _curves_on(ax, figure, figure.view(""))
        handles, names = ax.get_legend_handles_labels()
        if len(names) > 1:
            ax.legend(handles, names, fontsize=8)
    elif ax.name == "3d":
        _surface_on(ax, figure)
    else:
        _contours_on(ax, figure)


def _curves(figure: Curves, view: View) -> Figure:
    drawing = Figure(figsize=(11 if figure.wide else 7, 4.8), layout="constrained")
    ax = drawing.subplots()
    _curves_on(ax, figure, view)
    handles, names = ax.get_legend_handles_labels()
    shown = dict(zip(names, handles, strict=True))  # the seeds of a recipe share one name
    columns = max(1, min(3, 90 // (max(map(len, shown), default=0) + 6)))
    legend = drawing.legend(
        list(shown.values()), list(shown), loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return drawing


def _curves_on(ax: Axes, figure: Curves, view: View) -> None:
    """Lines, levels, axes and title of curves, without a legend."""
    floor = figure.floor()
    for series in view.series:
        _draw(ax, series, figure.y.scale, floor)
    for level in figure.levels:
        ax.axhline(level.value, color=colour(level.look), linestyle=":", linewidth=1.5, label=level.name)
    if view.x.scale == "log":  # a linear scale is not set, because that would remove names from the axis
        ax.set_xscale("log")
        _name_places(ax, sorted({float(x) for series in view.series for x in series.x}))
    ax.set_yscale(figure.y.scale)
    if figure.y.scale == "log" and figure.y.floor is None:
        _label_decades(ax)
    if figure.y.floor is not None:
        ax.set_ylim(figure.y.floor, 2 * max(v for series in view.series for v in series.y if v is not None))
    if view.series and any(isinstance(x, str) for x in view.series[0].x):
        ax.tick_params("x", rotation=90, labelsize=7)
    _label(ax, figure.title, view.x.label, figure.y.label)
    ax.grid(alpha=0.3)


def _name_places(ax: Axes, places: list[float]) -> None:
    """Labels the places of a logarithmic axis if they are few whole numbers; of places too near, only the last."""
    if 0 < len(places) <= FEW and all(x.is_integer() for x in places):
        apart = [x for x, after in zip(places, [*places[1:], math.inf], strict=True) if after > APART * x]
        ax.set_xticks(apart, [f"{x:g}" for x in apart])
        ax.minorticks_off()


def _label_decades(ax: Axes) -> None:
    """Labels a vertical axis of at most three decades with 1, 2, 5, 10, ... as plain numbers."""
    low, high = ax.get_ylim()
    if high < 1000 * low:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())


def _draw(ax: Axes, series: Series, scale: str, floor: float) -> None:
    color = colour(series.look)
    style, width = LINES[series.kind]
    symbol = marker(series.look)[0]
    drawn = series.drawn(scale)
    y = np.array([np.nan if value is None else value for value in drawn])
    lone = series.lone(scale)
    if series.kind == "points":
        every: list[int] | slice = list(range(len(y)))
    elif series.kind == "threshold":
        symbol, every = "_", lone
    else:
        step = max(1, -(-len(y) // POINTS))
        every = sorted({*range(0, len(y), step), *lone}) if series.kind == "line" else lone
    places: Any = _plain(series.x)
    ax.plot(
        places, y, linestyle=style, linewidth=width, color=color, marker=symbol, markersize=5, markevery=every,
        label=series.name,
    )  # fmt: skip
    if series.kind == "points" and (bars := series.bars(scale, floor)):
        reach = np.array(bars).T
        ax.errorbar(places, y, reach, linestyle="none", color=color, elinewidth=1, capsize=2)
    for x, low, high in series.band(scale, floor):
        ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    for where, symbol in ((series.gaps, "x"), (series.below(scale), "v")):
        if where and series.kind != "threshold":
            (marks,) = ax.plot(
                _plain(where), [0.02] * len(where), symbol, color=color, markersize=6, markerfacecolor="none",
                transform=ax.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip
            marks.set_in_layout(False)


def _plain(places: Sequence[Any]) -> list[Any]:
    """Places of an axis, with dollar signs in names escaped, so that matplotlib reads no formula."""
    return [x.replace("$", r"\$") if isinstance(x, str) else x for x in places]


def _label(ax: Axes, title: str, x: str, y: str) -> None:
    for text in (
        ax.set_title(title, loc="left", fontsize=11, wrap=True),
        ax.set_xlabel(x),
        ax.set_ylabel(y),
    ):
        text.set_parse_math(False)  # a name may contain a dollar sign


def _values(figure: Grid) -> tuple[np.ma.MaskedArray[Any, Any], Normalize]:
    """The values `[m, n]`, with missing ones masked, and the scale of their colours."""
    z = np.ma.masked_invalid(np.array([[np.nan if v is None else v for v in row] for row in figure.z], dtype=float))
    if figure.value.scale == "log":
        z = np.ma.masked_less_equal(z, 0)
        return z, LogNorm(z.min(), z.max()) if z.min() < z.max() else Normalize()
    return z, Normalize()


def _map(figure: Grid) -> Figure:
    """A map of cells of equal size, whatever the distances."""
    height = max(4.8, 0.16 * len(figure.ys) + 1.5)
    drawing = Figure(figsize=(11 if figure.wide else 7, height), layout="constrained")
    ax = drawing.subplots()
    z, norm = _values(figure)
    ax.set_facecolor("#dddddd")
    cells = ax.pcolormesh(np.arange(len(figure.xs)), np.arange(len(figure.ys)), z, cmap=COLOURS, norm=norm)
    every = max(1, len(figure.xs) // POINTS)
    ax.set_xticks(range(0, len(figure.xs), every), [f"{x:g}" for x in figure.xs[::every]])
    ax.set_yticks(range(len(figure.ys)), _plain([y if isinstance(y, str) else f"{y:g}" for y in figure.ys]), fontsize=7)
    gaps = [(i, j) for j, row in enumerate(figure.z) for i, v in enumerate(row) if v is None]
    ax.plot([i for i, _ in gaps], [j for _, j in gaps], "x", color="black")
    ax.invert_yaxis()
    if not figure.empty:
        drawing.colorbar(cells, label=figure.value.label)
    _label(ax, figure.title, figure.x.label, figure.y.label)
    return drawing


def _landscape(figure: Grid) -> Figure:
    """Contours of a landscape, and its surface beside them."""
    drawing = Figure(figsize=(12, 5), layout="constrained")
    _contours_on(drawing.add_subplot(1, 2, 1), figure)
    _surface_on(drawing.add_subplot(1, 2, 2, projection="3d"), figure)
    return drawing


def _contours_on(ax: Axes, figure: Grid) -> None:
    """Contours with their colour bar, crosses at missing points, and a mark at the state."""
    z, norm = _values(figure)
    xs, ys = _coordinates(figure)
    if z.min() < z.max():
        scaled = [norm.inverse(share) for share in np.linspace(0, 1, 16)] if norm.scaled() else None
        levels = scaled or np.linspace(z.min(), z.max(), 16)
        levels = [z.min(), *levels[1:-1], z.max()]  # the exact ends, without rounding
        filled = ax.contourf(xs, ys, z, levels=levels, cmap=COLOURS, norm=norm)
        ax.figure.colorbar(filled, ax=ax, label=figure.value.label, format="%.3g")
    gaps = figure.missing
    if gaps:  # an empty line that is not clipped takes all of a constrained layout
        ax.plot([x for x, _ in gaps], [y for _, y in gaps], "x", color="black", clip_on=False, zorder=5)
    if xs.min() <= 0 <= xs.max() and ys.min() <= 0 <= ys.max():
        ax.plot([0], [0], "+", color="#D55E00", markersize=12, clip_on=False, zorder=5)  # the state
    _label(ax, figure.title, figure.x.label, figure.y.label)


def _surface_on(ax: Any, figure: Grid) -> None:
    """The surface of a landscape, in axes of the 3d projection."""
    z, norm = _values(figure)
    height = np.ma.log10(z) if isinstance(norm, LogNorm) else z
    # mplot3d ignores masks, and draws nothing for NaN
    ax.plot_surface(*np.meshgrid(*_coordinates(figure)), height.filled(np.nan), cmap=COLOURS, rstride=1, cstride=1)
    ax.set_xlabel(figure.x.label)
    ax.set_ylabel(figure.y.label)
    ax.set_zlabel(f"{figure.value.label}{', log10' if isinstance(norm, LogNorm) else ''}")


def _coordinates(figure: Grid) -> tuple[Any, Any]:
    return np.array(figure.xs), np.array([float(y) for y in figure.ys])
