"""Numbers, times and curves as a reader takes them in on a line of text. Torch is not needed here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*%#"
"""levels of a sparkline from low to high, where the terminal has the blocks and where it lacks them"""
GAP = " "


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.1f} days"


def number(value: float | None) -> str:
    """Four digits of a number, or all before its point up to six; a dash for one that is not finite."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 999_999.5:
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def sparkline(values: Sequence[float | None], width: int, levels: str = BLOCKS) -> str:
    """A curve as one line of characters.

    Where there are more values than columns, a column has the mean of its share of them. The lowest column is of the
    first level and the highest of the last, on the scale that `logarithmic` chooses; a constant is in the middle.

    Args:
        values: in their order; None or one that is not finite is a gap, and so is a column that holds one.
        width: columns at most, at least 1.
        levels: characters from low to high.

    Returns:
        One character a column.
    """
    found = _columns(values, width)
    if logarithmic(values):
        found = [None if value is None else math.log(value) for value in found]
    there = [value for value in found if value is not None]
    if not there:
        return GAP * len(found)
    low, high = min(there), max(there)
    if high == low:
        return "".join(GAP if value is None else levels[len(levels) // 2] for value in found)
    # halves, as the span of two huge numbers may be no number
    span = high / 2 - low / 2
    shares = [None if value is None else (value / 2 - low / 2) / span if span else 0.0 for value in found]
    top = len(levels) - 1
    return "".join(GAP if share is None else levels[min(top, int(share * len(levels)))] for share in shares)


def logarithmic(values: Sequence[float | None]) -> bool:
    """Whether a curve is drawn by its logarithm: all positive, and the largest 30 times the smallest or more."""
    there = [value for value in values if value is not None and math.isfinite(value)]
    return bool(there) and min(there) > 0 and max(there) / 30 >= min(there)


def _columns(values: Sequence[float | None], width: int) -> list[float | None]:
    """The values, or means of equal shares of them where they are more than the columns."""
    count = min(len(values), width)
    edges = [position * len(values) // count for position in range(count + 1)] if count else []
    return [_mean(values[begin:end]) for begin, end in pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None and math.isfinite(value)]
    return sum(value / len(values) for value in there) if len(there) == len(values) else None
