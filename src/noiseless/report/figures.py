"""Figures of the report as plain values: `curves`, `noise` and others make them from runs, page and files draw them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

STEPS, PASSES, SECONDS = "steps", "passes", "seconds"
OVER = (PASSES, STEPS, SECONDS)
"""horizontal axes of curves; the page opens with the first"""

DECADE = 5.0
"""ratio of the largest to the smallest value above which an axis is logarithmic; smaller ratios are easier to read on a
linear axis"""


@dataclass(frozen=True)
class Axis:
    """One axis of a figure."""

    label: str
    scale: Literal["linear", "log"] = "linear"
    floor: float | None = None
    """lower end of the axis; values below it are not shown, but are in the data"""


@dataclass(frozen=True)
class Series:
    """One line of a figure, or a set of points."""

    name: str
    x: Sequence[float | str]
    """rising numbers, or names"""
    y: Sequence[float | None]
    """None: a value that is not finite, drawn as a gap"""
    look: int | None = 0
    """number of the recipe, which gives colour and marker (`looks`); None: grey"""
    kind: Literal["line", "thin", "threshold", "points"] = "line"
    """`line`: of a recipe; `thin`: of one seed; `threshold`: a bound, dashed; `points`: no line"""
    low: Sequence[float | None] | None = None
    """smallest value over the seeds; None if there is one seed"""
    high: Sequence[float | None] | None = None
    """largest value over the seeds; None if there is one seed"""

    @property
    def gaps(self) -> list[float | str]:
        """Places of values that are not finite."""
        return [x for x, y in zip(self.x, self.y, strict=True) if y is None]

    def below(self, scale: str) -> list[float | str]:
        """Places of finite values that a logarithmic axis cannot show, because they are 0 or less."""
        return [x for x, y in zip(self.x, self.y, strict=True) if scale == "log" and y is not None and y <= 0]

    def drawn(self, scale: str) -> list[float | None]:
        """The values, with None for those that cannot be drawn."""
        return [None if y is None or (scale == "log" and y <= 0) else y for y in self.y]

    def lone(self, scale: str) -> list[int]:
        """Positions of values between two gaps, which a line does not show."""
        drawn = [None, *self.drawn(scale), None]
        return [
            k - 1
            for k in range(1, len(drawn) - 1)
            if drawn[k] is not None and drawn[k - 1] is None and drawn[k + 1] is None
        ]

    def bars(self, scale: str, floor: float) -> list[tuple[float, float]]:
        """Lengths of the error bars: from each value down to the smallest seed and up to the largest.

        Args:
            scale: of the vertical axis.
            floor: lower end of a bar on a logarithmic axis if the smallest seed is 0 or less.

        Returns:
            A pair (below, above) for each value, both at least 0; empty if there is one seed.
        """
        if self.low is None or self.high is None:
            return []
        lengths = []
        for y, low, high in zip(self.drawn(scale), self.low, self.high, strict=True):
            if y is None or low is None or high is None:
                lengths.append((0.0, 0.0))
            else:
                lowest = floor if scale == "log" and low <= 0 else low
                lengths.append((max(0.0, y - lowest), max(0.0, high - y)))
        return lengths

    def band(self, scale: str, floor: float) -> list[tuple[list[Any], list[float], list[float]]]:
        """The band between the smallest and the largest seed, cut into parts at gaps.

        Args:
            scale: of the vertical axis.
            floor: lower end of the band on a logarithmic axis where the smallest seed is 0 or less.

        Returns:
            Parts `(x, low, high)` with at least two places each; empty for points, which have error bars.
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
    """A horizontal line at the value of a setting."""

    value: float
    name: str
    look: int | None
    """number of the recipe that has the setting; None: several recipes have it"""


@dataclass(frozen=True)
class View:
    """The series of a figure over one horizontal axis."""

    x: Axis
    series: list[Series]


@dataclass(frozen=True)
class Curves:
    """Lines or points over one horizontal axis, or over a choice of two."""

    id: str
    """name of its files; the same runs give the same id"""
    title: str
    y: Axis
    views: dict[str, View]
    """by horizontal axis: steps and passes, or a single one of any name"""
    levels: list[Level] = field(default_factory=list)
    legend: bool = False
    """whether the figure needs its own legend besides that of the recipes"""
    wide: bool = False
    note: str = ""

    def view(self, over: str) -> View:
        """The view over an axis, or the only view."""
        return self.views.get(over) or next(iter(self.views.values()))

    def floor(self) -> float:
        """The smallest positive value, at which a band that reaches 0 ends on a logarithmic axis."""
        all_series = [series for view in self.views.values() for series in view.series]
        return least(y for series in all_series for part in (series.y, series.low or ()) for y in part) or 1.0


@dataclass(frozen=True)
class Grid:
    """Values over two axes, for contours, surfaces and maps."""

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
    """values `[m][n]`, a row for each y; None: a point that is missing or not finite"""
    surface: bool = False
    """True: a landscape, drawn as contours and a surface; False: a map of cells"""
    wide: bool = False
    note: str = ""

    @property
    def missing(self) -> list[tuple[float, float | str]]:
        """The points (x, y) without a value."""
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
    """The table of a section, with cells of text."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    title: str
    text: str
    figures: Sequence[AnyFigure] = ()
    table: Table | None = None


def number(value: Any) -> float | None:
    """A value from a record as a float; None if it is not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(values: Iterable[Any]) -> list[float | None]:
    """Values from a record as floats, see `number`."""
    return [number(value) for value in values]


def least(values: Iterable[float | None]) -> float | None:
    """The smallest positive value; None if there is none."""
    return min((value for value in values if value is not None and value > 0), default=None)


def scale(values: Iterable[float | None], ratio: float = DECADE) -> Literal["linear", "log"]:
    """The scale of an axis: logarithmic if the largest value is more than `ratio` times the smallest positive one.

    Args:
        values: of the axis. Values of 0 or less do not count; figures mark them.
        ratio: at least 1.

    Returns:
        The scale.
    """
    known = [value for value in values if value is not None]
    smallest = least(known)
    return "log" if smallest is not None and max(known) / smallest > ratio else "linear"


def slug(text: str) -> str:
    """A text as a part of a file name: lower-case letters, digits and hyphens, at most 40."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
