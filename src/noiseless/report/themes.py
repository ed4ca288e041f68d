"""What all plots of the page share: escaped texts, titles, the light and the dark theme, and lists stored once."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Any

from noiseless.printable import printable
from noiseless.report.looks import COLOURS, DARK, DARK_GREY, GREY, rgba

Json = dict[str, Any]

PLACE = "$"
"""key of an object that refers to a list in `Pool.lists`"""
TITLE, WIDE_TITLE = 46, 110
"""letters per line of a title: in a plot of half the page's width, and of the full width"""
ALPHA = 0.2
"""opacity of bands"""
FONT = "system-ui, sans-serif"
TICKS = {
    "gridcolor": "rgba(128,128,128,0.25)",
    "zeroline": False,
    "ticks": "outside",
    "automargin": True,
}
PALETTE = {
    **dict(zip(COLOURS, DARK, strict=True)),
    **{rgba(light, ALPHA): rgba(dark, ALPHA + 0.05) for light, dark in zip(COLOURS, DARK, strict=True)},
    GREY: DARK_GREY,
}
"""colour of the light page -> colour of the dark page"""


class Pool:
    """Lists of numbers, each stored once, because curves of one run share their steps.

    Numbers are rounded to six digits, which is more than a screen can show.
    """

    def __init__(self) -> None:
        self.lists: list[list[Any]] = []
        self._places: dict[tuple[Any, ...], int] = {}

    def keep(self, values: Sequence[Any]) -> Json:
        """Stores a list and returns the object that refers to it."""
        short = tuple(float(f"{v:.6g}") if isinstance(v, float) else v for v in values)
        if short not in self._places:
            self._places[short] = len(self.lists)
            self.lists.append(list(short))
        return {PLACE: self._places[short]}


def text_of(text: str) -> str:
    """A text in the page: markup is escaped, and so are control characters, which a run of others may hold."""
    return html.escape(printable(text))


def escaped(text: str) -> str:
    """A text of a plot, with the same escaped but quotes, because plotly reads some HTML tags in texts."""
    return html.escape(printable(text), quote=False)


def layout_of(title: str, letters: int = TITLE) -> Json:
    """Title and margins of a plot.

    Args:
        title: plain text, which is broken into lines.
        letters: largest number of letters per line, so that the title ends left of the buttons.

    Returns:
        A layout with these entries.
    """
    lines = [escaped(line) for line in textwrap.wrap(title, letters)] or [""]
    place = {"x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 8}}
    margin = {"l": 76, "r": 16, "t": 26 + 20 * len(lines), "b": 54}
    return {"title": {"text": "<br>".join(lines), "font": {"size": 15}, **place}, "margin": margin}


def templates() -> Json:
    """Plotly's templates of the light and the dark theme."""
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
