"""Figures as files: each as PNG and SVG, its data as CSV; the same bytes for the same figure."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shown_runs import analysed

from noiseless.report import drawing, sheets
from noiseless.report.contents import sections
from noiseless.report.figures import Axis, Curves, Grid, Level, Series, View
from noiseless.report.summary import by_recipe


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    runs = [analysed(path / f"{k}", seed=k, clip=0.25) for k in range(2)] + [analysed(path / "b", name="b $x$ 日本")]
    return [figure for section in sections(by_recipe(runs)) for figure in section.figures]


def look(figure):
    """What the drawing of a figure depends on, besides its numbers and names."""
    if isinstance(figure, Grid):
        names = any(isinstance(y, str) for y in figure.ys)
        return Grid, figure.value.scale, figure.surface, figure.wide, figure.empty, names
    series = figure.view("passes").series
    kinds = frozenset((one.kind, one.low is None, isinstance(one.x[0], str)) for one in series)
    x, y = figure.view("passes").x, figure.y
    return Curves, x.scale, y.scale, y.floor, bool(figure.levels), figure.wide, kinds


def test_a_figure_of_each_look_is_a_picture_a_drawing_and_a_table(figures, tmp_path):
    figures = list({look(figure): figure for figure in figures}.values())
    assert len(figures) >= 12
    paths = drawing.write(tmp_path / "a" / "b", figures, "passes")
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == sorted(
        f"{figure.id}.{suffix}" for figure in figures for suffix in ("png", "svg", "csv")
    )
    for path in paths:
        if path.suffix == ".png":
            picture = Image.open(path).convert("RGB")
            assert min(picture.size) > 500
            assert picture.getcolors(20) is None  # more than 20: lines, their soft edges, text
        if path.suffix == ".svg":
            root = ElementTree.fromstring(path.read_text())
            assert len(root.findall(".//{http://www.w3.org/2000/svg}path")) > 10


def test_the_same_figure_has_the_same_bytes(figures):
    for figure in (figures[0], next(f for f in figures if isinstance(f, Grid) and f.surface)):
        for kind in ("png", "svg"):
            once, again = (drawing.encode(drawing.draw(figure, "steps"), kind) for _ in range(2))
            assert once == again


def test_a_curve_is_where_its_values_are():
    """Gaps are gaps in the drawn line, the level is at its value, and marks are at the bottom."""
    series = Series("a", [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, None, 3.0, 4.0, 0.0])
    figure = Curves("x", "x", Axis("y", "log"), {"steps": View(Axis("steps"), [series])}, [Level(2.0, "clip 2", None)])
    (ax,) = drawing.draw(figure, "steps").axes
    line, level, gap, zero = ax.lines[0], ax.lines[-1], ax.lines[1], ax.lines[2]
    assert np.array_equal(line.get_ydata(), [1, np.nan, 3, 4, np.nan], equal_nan=True)
    assert list(level.get_ydata()) == [2.0, 2.0]
    assert (list(gap.get_xdata()), gap.get_marker()) == ([2.0], "x")
    assert (list(zero.get_xdata()), zero.get_marker()) == ([5.0], "v")
    assert ax.get_yscale() == "log"


def test_names_stay_on_their_axis():
    series = Series("a", ["conv.weight", "a$b$"], [1.0, 100.0])
    (ax,) = drawing.draw(Curves("x", "x", Axis("y", "log"), {"": View(Axis("parameter"), [series])}), "").axes
    ax.figure.draw_without_rendering()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["conv.weight", r"a\$b\$"]


def test_the_few_places_of_a_logarithmic_axis_have_their_numbers():
    series = [Series("a", [14, 30, 60], [50.0, 4.0, 0.7]), Series("b", [15, 30, 60], [10.0, 2.0, 1.0])]
    drawn = drawing.draw(
        Curves("id", "title", Axis("error", "log"), {"passes": View(Axis("passes", "log"), series)}), "passes"
    )
    (ax,) = drawn.axes
    drawn.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["15", "30", "60"]  # 14 would overlap 15
    low, high = ax.get_ylim()
    shown = [float(label.get_text()) for label in ax.get_yticklabels()]
    assert [y for y in shown if low < y < high] == [1, 2, 5, 10, 20, 50]


def test_the_legend_is_close_below():
    lines = [Series(f"a{k}", [1.0, 2.0], [0.0, 100.0 * k], k) for k in range(3)]
    drawn = drawing.draw(Curves("x", "x", Axis("y", "log"), {"": View(Axis("steps"), lines)}), "steps")
    drawn.draw_without_rendering()
    assert drawn.axes[0].get_position().y0 < 0.25


def test_bands_end_at_gaps():
    y = [1.0, 2.0, None, 4.0, 5.0]
    series = Series("a", [1.0, 2.0, 3.0, 4.0, 5.0], y, low=[0.5, 1.0, None, 3.0, 4.0], high=[2.0, 3.0, None, 5.0, 6.0])
    (ax,) = drawing.draw(Curves("x", "x", Axis("y"), {"": View(Axis("x"), [series])}), "").axes
    assert len(ax.collections) == 2
    assert sorted(set(ax.collections[0].get_paths()[0].vertices[:, 0])) == [1.0, 2.0]


def test_a_landscape_has_holes_where_points_are_missing(figures):
    figure = next(f for f in figures if f.id == "landscape-2d-1-loss")
    drawn = drawing.draw(figure, "steps")
    crosses = [line for ax in drawn.axes for line in ax.lines if line.get_marker() == "x"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in crosses] == [([0.0], [5.0])]
    assert any(ax.name == "3d" for ax in drawn.axes)


@pytest.mark.parametrize("surface", [True, False])
@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize(
    "z", [[[None, None], [None, None]], [[1.0, 1.0], [1.0, 1.0]], [[1.0, None], [None, None]], [[0.0, 1.0], [2.0, 3.0]]]
)
def test_grids_without_values_or_without_differences_can_be_drawn(z, scale, surface):
    figure = Grid("x", "x", Axis("a"), Axis("b"), Axis("loss", scale), [0.0, 1.0], [0.0, 1.0], z, surface=surface)
    assert len(drawing.encode(drawing.draw(figure, "steps"), "png")) > 1000


def test_names_are_shown_as_they_are(figures):
    curve = next(f for f in figures if f.id == "train-loss")
    svg = drawing.encode(drawing.draw(curve, "steps"), "svg").decode()
    assert "<!-- b $x$ 日本 -->" in svg  # each text of a drawing is a comment in it, too
    names = Curves("x", "$t$", Axis("y"), {"": View(Axis("x"), [Series("$s$", ["$a$", "b$"], [1.0, 2.0])])})
    svg = drawing.encode(drawing.draw(names, ""), "svg").decode()
    assert {"<!-- $t$ -->", "<!-- $s$ -->"} <= set(re.findall("<!-- .* -->", svg))


def read(figure):
    return list(csv.reader(io.StringIO(sheets.text(figure))))


def number(text):
    return None if text == "" else float(text)


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=9))
def test_curves_are_read_back_from_their_csv_with_all_digits(ys):
    xs = [float(k) / 3 for k in range(len(ys))]
    series = [Series('a, "b"\n', xs, ys), Series("c", xs, ys, low=ys, high=ys)]
    views = {over: View(Axis(over), series) for over in ("steps", "passes")}
    head, *rows = read(Curves("x", "x", Axis("y"), views, [Level(0.1, "clip", None)]))
    assert tuple(head) == sheets.CURVES
    assert rows.pop() == ["level", "", "clip", "0.1", "", ""]
    for over in ("steps", "passes"):
        for curve in series:
            lines = [line for line in rows if (line[0], line[2]) == (over, curve.name)]
            assert [float(line[1]) for line in lines] == xs
            assert [number(line[3]) for line in lines] == ys
            assert [number(line[5]) for line in lines] == (ys if curve.high else [None] * len(ys))


def test_a_grid_is_read_back_from_its_csv(figures):
    figure = next(f for f in figures if f.id == "landscape-2d-1-loss")
    head, *rows = read(figure)
    assert head == [figure.x.label, figure.y.label, figure.value.label]
    values = {(float(x), float(y)): number(value) for x, y, value in rows}
    assert values == {
        (x, y): figure.z[j][i] for j, y in enumerate(figure.ys) for i, x in enumerate(figure.xs)
    }  # fmt: skip
    assert values[0.0, 5.0] is None


def test_a_gap_is_no_value_in_any_file(figures):
    sharpness = next(f for f in figures if f.id == "sharpness")
    lines = [line for line in read(sharpness) if line[:3] == ["steps", "4.0", "fb-regularized"]]
    assert lines == [["steps", "4.0", "fb-regularized", "", "", ""]]
    assert replace(sharpness, views={}).floor() == 1.0
