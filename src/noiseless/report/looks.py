"""The look of a recipe in figures: a colour and a marker, chosen by the number of the recipe."""

from __future__ import annotations

BLACK = "#000000"
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", BLACK, "#332288", "#999933", "#882255",
)  # fmt: skip
"""colours on a light ground: Okabe and Ito's palette for colour-blind readers, and three of Tol's muted palette, as a
race has ten contenders"""
DARK = (
    "#3D9BE0", "#F0B030", "#1FBF92", "#F27830", "#E09CC2", "#A5DBFF", "#FFFFFF", "#9C8CF0", "#CFCF6B", "#D9689B",
)  # fmt: skip
"""lighter colours of the same hues, for a dark ground"""
GREY, DARK_GREY = "#595959", "#B0B0B0"

MARKERS = (
    ("o", "circle", "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z"),
    ("s", "square", "M-4-4h8v8h-8z"),
    ("^", "triangle-up", "M0-5l5 9h-10z"),
    ("D", "diamond", "M0-5l5 5-5 5-5-5z"),
    ("v", "triangle-down", "M0 5l5-9h-10z"),
    ("P", "cross", "M-2-5h4v3h3v4h-3v3h-4v-3h-3v-4h3z"),
    ("X", "x", "M-5-3l2-2 3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3z"),
    ("*", "star", "M0-6l1.5 4h4l-3.2 2.6 1.2 4-3.5-2.4-3.5 2.4 1.2-4-3.2-2.6h4z"),
)
"""matplotlib's marker, plotly's symbol, and an SVG path in a box of 12 by 12 around 0"""


def colour(look: int | None) -> str:
    """The colour of a recipe by its number; grey for None."""
    return GREY if look is None else COLOURS[look % len(COLOURS)]


def marker(look: int | None) -> tuple[str, str, str]:
    """The marker of a recipe by its number: for matplotlib, for plotly, and as an SVG path."""
    return MARKERS[(look or 0) % len(MARKERS)]


def rgba(hexadecimal: str, alpha: float) -> str:
    """A colour with transparency, in the notation of CSS."""
    red, green, blue = (int(hexadecimal[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"
