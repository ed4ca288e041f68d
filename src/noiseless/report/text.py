"""Numbers, times and curves as one line of text. This module does not import torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
"""levels of a sparkline from low to high, in a terminal with Unicode blocks"""
ASCII_BLOCKS = "_.-=+*%#"
"""levels of a sparkline from low to high, in a terminal without them"""
GAP = " "
"""a value of a sparkline that is not finite"""


def duration(seconds: float) -> str:
    """A time with its unit: seconds, minutes, hours or days."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.1f} days"


def number(value: float | None) -> str:
    """A number with four digits, or up to six before the decimal point; a dash if it is None or not finite."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 999_999.5:
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def sparkline(values: Sequence[float | None], width: int, levels: str = BLOCKS) -> str:
    """A curve as one line of characters.

    If finite are more values than columns, each column shows the mean of an equal share of the values. The smallest
    column has the first level and the largest the last, on the scale that `logarithmic` chooses. A constant curve has
    the middle level.

    Args:
        values: the curve. A value that is None or not finite is a gap, and so is the column that it belongs to.
        width: largest number of columns, at least 1.
        levels: characters from low to high.

    Returns:
        One character for each column.
    """
    columns = _columns(values, width)
    if logarithmic(values):
        columns = [None if value is None else math.log(value) for value in columns]
    finite = [value for value in columns if value is not None]
    if not finite:
        return GAP * len(columns)
    low, high = min(finite), max(finite)
    if high == low:
        return "".join(GAP if value is None else levels[len(levels) // 2] for value in columns)
    # halves, because the difference of two huge numbers may overflow
    span = high / 2 - low / 2
    shares = [None if value is None else (value / 2 - low / 2) / span if span else 0.0 for value in columns]
    top = len(levels) - 1
    return "".join(GAP if share is None else levels[min(top, int(share * len(levels)))] for share in shares)


def logarithmic(values: Sequence[float | None]) -> bool:
    """Whether a curve shows logarithms: all values are positive, and the largest is at least 30 times the smallest."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / 30 >= min(finite)


def _columns(values: Sequence[float | None], width: int) -> list[float | None]:
    """The values, or means of equal shares of them if there are more than `width`."""
    count = min(len(values), width)
    edges = [position * len(values) // count for position in range(count + 1)] if count else []
    return [_mean(values[begin:end]) for begin, end in pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return sum(value / len(values) for value in finite) if len(finite) == len(values) else None
