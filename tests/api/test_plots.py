"""Results are drawn into axes of the caller's, with the values that they hold; bars are seen where they help."""

from __future__ import annotations

import io
import re
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from problems import perceptron, points
from short_analyses import LOSS, RESULTS

import noiseless
from noiseless.api import progress
from noiseless.api.progress import Bar


@pytest.fixture(autouse=True)
def _files_only():
    mpl.use("Agg")
    yield
    pyplot.close("all")


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_drawn_into_the_axes_that_are_given(name):
    x, _ = points(40)
    result = RESULTS[name](perceptron(), (x, x.argmax(1)))  # a gradient above its noise
    figure, axes = pyplot.subplots(1, 2)
    assert result.plot(axes[1]) is axes[1]
    assert axes[1].get_title(loc="left")
    assert not axes[0].has_data()
    assert axes[1].has_data()
    file = io.BytesIO()
    figure.savefig(file)
    assert len(file.getvalue()) > 5000
    new = result.plot()
    assert new.figure is pyplot.gcf() is not figure


def test_what_is_drawn_are_the_values():
    module, data = perceptron(), points()
    top = noiseless.sharpness(module, LOSS, data, k=3, smallest=2)
    ax = top.plot()
    largest, smallest = (line for line in ax.lines if line.get_label().startswith(("largest", "smallest")))
    np.testing.assert_array_equal(largest.get_ydata(), top.eigenvalues)
    np.testing.assert_array_equal(smallest.get_ydata(), top.smallest)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "largest, ± residual", "smallest, ± residual",
    ]  # fmt: skip
    line = noiseless.loss_landscape(module, LOSS, data, points=4)
    for of in ("loss", "accuracy"):
        (drawn,) = line.plot(of=of).lines
        np.testing.assert_array_equal(drawn.get_xdata(), line.axes[0])
        np.testing.assert_array_equal(drawn.get_ydata(), getattr(line, of))
    flat = noiseless.flatness(module, LOSS, data, most=5)
    assert any(list(drawn.get_ydata()) == [flat.value] * 2 for drawn in flat.plot().lines)
    density = noiseless.hessian_density(module, LOSS, data)
    np.testing.assert_array_equal(density.plot().lines[0].get_ydata(), density.density)


def test_a_plane_is_contours_or_a_surface():
    plane = noiseless.loss_landscape(perceptron(), LOSS, points(), points=(4, 3))
    contours = plane.plot()
    assert contours.name == "rectilinear"
    assert len(contours.figure.axes) == 2  # with the bar of colours
    surface = plane.plot(pyplot.figure().add_subplot(projection="3d"))
    assert surface.name == "3d"
    assert surface.get_xlabel() == "random direction 0 (filter-normalised)"
    assert list(surface.zz_dataLim.intervalx) == pytest.approx([plane.loss.min(), plane.loss.max()])


def test_a_landscape_leaves_room_for_its_neighbour():
    drawing, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    noiseless.loss_landscape(perceptron(), LOSS, points(), points=(3, 3)).plot(right)
    drawing.canvas.draw()
    assert left.get_position().width > 0.35  # of the figure's width, as its neighbour has with its colour bar
    assert right.get_position().width > 0.35
    pyplot.close(drawing)


def test_without_a_value_nothing_is_drawn():
    line = noiseless.loss_landscape(perceptron(), lambda output, _: output.exp().sum(1), points(), points=2, reach=1e4)
    assert np.isnan(line.loss).all()
    assert repr(line) == "LossLandscape(2 points, no finite loss, passes=0.6667)"
    with pytest.raises(ValueError, match="nothing to draw"):
        line.plot()
    noise = noiseless.gradient_noise_scale(perceptron(), LOSS, points(), block=3)
    assert noise.value is None
    with pytest.raises(ValueError, match="cannot be distinguished from zero"):
        noise.plot()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_seen_in_a_terminal_when_work_is_long(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    module, data = perceptron(), points()
    seen = {}
    for name, show, delay in (("asked", True, 2.0), ("short", None, 1e9), ("long", None, 0.0), ("none", False, 0.0)):
        monkeypatch.setattr("sys.stderr", Terminal())
        monkeypatch.setattr(progress, "DELAY", delay)
        noiseless.loss_landscape(module, LOSS, data, points=5, block=4, progress=show)
        seen[name] = sys.stderr.getvalue()
    assert seen["short"] == seen["none"] == ""
    for name in ("asked", "long"):
        assert "loss landscape" in seen[name]
        assert "15/15" in seen[name]  # 5 points with 3 blocks each


def test_no_bar_goes_to_a_file(capsys):
    noiseless.hessian_trace(perceptron(), LOSS, points())
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_bar_in_a_notebook_is_one_line_that_is_removed(monkeypatch):
    shown = []

    class Handle:
        def update(self, content, raw):
            shown.append(content["text/plain"])

    def display(content, raw, display_id):
        shown.append(content["text/plain"])
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with Bar("flatness", True) as bar:
        bar.total = 2
        bar.advance()
    assert shown[0] == "flatness"
    assert re.fullmatch(r"flatness: 1 of 2 chunks, \S+ s", shown[1])
    assert shown[2] == ""
