"""What a figure of the report is: plain values. Rooms below make them of runs; the page, files and CSV draw them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

STEPS, PASSES = "steps", "passes"
OVER = (PASSES, STEPS)
"""what curves can be drawn over, the page's first choice first"""

DECADE = 5.0
"""ratio of the largest to the smallest value above which an axis is logarithmic: a part of a decade is better seen on a
linear one"""
LOOKS = 56
"""recipes that can be told from each other: 7 colours and 8 markers, which have no common factor"""


@dataclass(frozen=True)
class Axis:
    """One direction of a figure."""

    label: str
    scale: Literal["linear", "log"] = "linear"
    floor: float | None = None
    """where the axis begins; what lies below is not shown, but kept in the data"""


@dataclass(frozen=True)
class Series:
    """One line of a figure, or its points."""

    name: str
    x: Sequence[float | str]
    """rising numbers, or names in their order"""
    y: Sequence[float | None]
    """None: a value that is not finite, a gap"""
    look: int | None = 0
    """number of the recipe, which has a colour and a marker; None: grey"""
    kind: Literal["line", "thin", "threshold", "points"] = "line"
    """a recipe's line; that of one of its seeds; a bound, dashed; points without a line"""
    low: Sequence[float | None] | None = None
    """smallest of the seeds, where they are more than one"""
    high: Sequence[float | None] | None = None
    """largest of the seeds"""

    @property
    def gaps(self) -> list[float | str]:
        """Where a value is not finite."""
        return [x for x, y in zip(self.x, self.y, strict=True) if y is None]

    def below(self, scale: str) -> list[float | str]:
        """Where a value is finite, and 0 or less so that a logarithmic axis has no place for it."""
        return [x for x, y in zip(self.x, self.y, strict=True) if scale == "log" and y is not None and y <= 0]

    def drawn(self, scale: str) -> list[float | None]:
        """The values with None where nothing can be drawn."""
        return [None if y is None or (scale == "log" and y <= 0) else y for y in self.y]

    def lone(self, scale: str) -> list[int]:
        """Positions of values between two gaps, which a line would not show."""
        drawn = [None, *self.drawn(scale), None]
        return [
            k - 1
            for k in range(1, len(drawn) - 1)
            if drawn[k] is not None and drawn[k - 1] is None and drawn[k + 1] is None
        ]

    def bars(self, scale: str, floor: float) -> list[tuple[float, float]]:
        """How far the seeds reach below and above each value, for points.

        Args:
            scale: of the vertical axis.
            floor: what stands for 0 and less on a logarithmic one.

        Returns:
            Lengths of at least 0, a pair a value; nothing where there is one seed.
        """
        if self.low is None or self.high is None:
            return []
        found = []
        for y, low, high in zip(self.drawn(scale), self.low, self.high, strict=True):
            if y is None or low is None or high is None:
                found.append((0.0, 0.0))
            else:
                lowest = floor if scale == "log" and low <= 0 else low
                found.append((max(0.0, y - lowest), max(0.0, high - y)))
        return found

    def band(self, scale: str, floor: float) -> list[tuple[list[Any], list[float], list[float]]]:
        """The band's parts between gaps, each as (x, low, high).

        Args:
            scale: of the vertical axis.
            floor: what stands for 0 and less on a logarithmic one.

        Returns:
            Parts of at least two places; none of points, which have bars.
        """
        if self.kind == "points":
            return []
        parts: list[tuple[list[Any], list[float], list[float]]] = [([], [], [])]
        for x, y, low, high in zip(self.x, self.drawn(scale), self.low or [], self.high or [], strict=False):
            if y is None or low is None or high is None:
                parts.append(([], [], []))
                continue
            lowest = floor if scale == "log" and low <= 0 else low
            for values, value in zip(parts[-1], (x, lowest, high), strict=True):
                values.append(value)
        return [part for part in parts if len(part[0]) > 1]


@dataclass(frozen=True)
class Level:
    """A horizontal line that stands for a setting."""

    value: float
    name: str
    look: int | None
    """of the recipe whose setting it is; None: of several"""


@dataclass(frozen=True)
class View:
    """A figure over one choice of the horizontal axis."""

    x: Axis
    series: list[Series]


@dataclass(frozen=True)
class Curves:
    """Lines or points over one axis, or over a choice of two."""

    id: str
    """names its files; the same for the same runs"""
    title: str
    y: Axis
    views: dict[str, View]
    """over steps and over passes, or one alone by any name"""
    levels: list[Level] = field(default_factory=list)
    legend: bool = False
    """whether its series need a legend of their own beside that of the recipes"""
    wide: bool = False
    note: str = ""

    def view(self, over: str) -> View:
        """The one that is asked for, or the only one."""
        return self.views.get(over) or next(iter(self.views.values()))

    def floor(self) -> float:
        """The smallest positive value there is, at which a band that reaches 0 ends on a logarithmic axis."""
        every = [series for view in self.views.values() for series in view.series]
        return least(y for series in every for part in (series.y, series.low or ()) for y in part) or 1.0


@dataclass(frozen=True)
class Grid:
    """A value over two axes."""

    id: str
    title: str
    x: Axis
    y: Axis
    value: Axis
    xs: Sequence[float]
    """`[n]`"""
    ys: Sequence[float | str]
    """`[m]`"""
    z: Sequence[Sequence[float | None]]
    """`[m][n]`: a row for each y. None: a point that is missing or not finite"""
    surface: bool = False
    """whether it is a landscape, with contours and a surface, or a map of cells"""
    wide: bool = False
    note: str = ""

    @property
    def missing(self) -> list[tuple[float, float | str]]:
        """The points (x, y) that have no value."""
        return [
            (x, y)
            for y, row in zip(self.ys, self.z, strict=True)
            for x, value in zip(self.xs, row, strict=True)
            if value is None
        ]

    @property
    def empty(self) -> bool:
        """Whether no point has a value."""
        return len(self.missing) == len(self.xs) * len(self.ys)


AnyFigure = Curves | Grid


@dataclass(frozen=True)
class Table:
    """Rows of a section, as text."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    title: str
    text: str
    figures: Sequence[AnyFigure] = ()
    table: Table | None = None


def number(value: Any) -> float | None:
    """A value of a record as a number, None where it is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(values: Iterable[Any]) -> list[float | None]:
    """Values of a record as numbers."""
    return [number(value) for value in values]


def least(values: Iterable[float | None]) -> float | None:
    """The smallest positive value, None where there is none."""
    return min((value for value in values if value is not None and value > 0), default=None)


def scale(values: Iterable[float | None], ratio: float = DECADE) -> Literal["linear", "log"]:
    """Logarithmic where the largest value is more than `ratio` times the smallest positive one.

    Args:
        values: of an axis. Those of 0 and less do not count: they are marked.
        ratio: at least 1.

    Returns:
        The scale.
    """
    known = [value for value in values if value is not None]
    smallest = least(known)
    return "log" if smallest is not None and max(known) / smallest > ratio else "linear"


def slug(text: str) -> str:
    """A text as a part of a file's name: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
