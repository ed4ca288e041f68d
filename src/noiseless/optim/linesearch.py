"""Line searches: how far to go along a direction. Step 7 of a training step, where a recipe asks for one.

A search sees a function of one number, `phi(a) = F(theta + a d)` with its slope `phi'(a) = grad F . d`, at a few trial
sizes a; `searched.py` gives it an optimizer's direction d. All numbers are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from noiseless.errors import UnknownNameError

TAKES = {
    "armijo": ("c1", "shrink", "trials", "remember"),
    "wolfe": ("c1", "c2", "trials", "remember"),
    "non-monotone": ("c1", "shrink", "trials", "remember", "memory"),
    "restarting": ("c1", "shrink", "trials", "memory"),
}
"""the searches, and the options that each takes"""


@dataclass(frozen=True)
class Options:
    """The numbers of a line search.

    Raises:
        ValueError: for one out of its range.
    """

    c1: float = 1e-4
    """share of the decrease that the slope at 0 promises which is asked for"""
    c2: float = 0.9
    """largest share of the slope at 0 that may be left (Wolfe)"""
    shrink: float = 0.5
    """factor from one trial to the next (backtracking)"""
    trials: int = 20
    """largest number of trials: a search costs no more evaluations than these"""
    memory: int = 10
    """M: a value is compared with the largest of the last M (non-monotone, restarting)"""
    remember: bool = False
    """whether the first trial is twice the last accepted size, at most 1; else it is always 1"""

    def __post_init__(self) -> None:
        for name in ("c1", "c2", "shrink"):
            _between(name, getattr(self, name), 0.0, 1.0)
        for name in ("trials", "memory"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"a line search's {name} must be a whole number of at least 1, not {value!r}")
        if not isinstance(self.remember, bool):
            raise ValueError(f"a line search's remember must be True or False, not {self.remember!r}")


def make_options(kind: str, given: dict[str, Any]) -> Options:
    """The options of a line search by its name.

    Args:
        kind: see `TAKES`.
        given: values by name.

    Returns:
        The options, the others at their defaults.

    Raises:
        UnknownNameError: for an unknown search.
        ValueError: for an option that the search does not take, or a value out of its range.
    """
    if kind not in TAKES:
        raise UnknownNameError("line search", kind, TAKES)
    stray = [name for name in given if name not in TAKES[kind]]
    if stray:
        raise ValueError(f"the line search {kind} takes no {', '.join(stray)}; it takes {', '.join(TAKES[kind])}")
    options = Options(**given)
    if "c2" in TAKES[kind] and not options.c1 < options.c2:
        raise ValueError(f"the line search {kind} needs c1 below c2, not {options.c1} and {options.c2}")
    return options


@dataclass(frozen=True)
class Trial:
    """What was found at one size."""

    size: float
    """a, in units of the direction"""
    value: float
    """phi(a)"""
    slope: float
    """phi'(a)"""

    @property
    def finite(self) -> bool:
        """Whether value and slope are finite."""
        return math.isfinite(self.value) and math.isfinite(self.slope)


Ask = Callable[[float], Trial]
"""size -> what is found there; each call costs an evaluation"""


def backtrack(ask: Ask, start: Trial, reference: float, first: float, options: Options) -> Trial:
    """The first of `first * shrink**k` with `phi(a) <= reference + c1 a phi'(0)`.

    With the reference phi(0) this is Armijo's rule (Pacific J. Math. 16, 1966; Nocedal and Wright 2006, algorithm 3.1);
    with the largest of the last M values, that of Grippo, Lampariello and Lucidi (SIAM J. Numer. Anal. 23, 1986, doi
    10.1137/0723046).

    Args:
        ask: gives value and slope at a size.
        start: at size 0, its slope negative.
        reference: what values are compared with, at least phi(0).
        first: the first trial.
        options: c1, shrink, trials.

    Returns:
        The accepted trial; `start` where none of the trials was low enough.
    """
    for k in range(options.trials):
        found = ask(first * options.shrink**k)
        if found.finite and found.value <= reference + options.c1 * found.size * start.slope:
            return found
    return start


def wolfe(ask: Ask, start: Trial, first: float, options: Options) -> Trial:
    """A size with `phi(a) <= phi(0) + c1 a phi'(0)` and `|phi'(a)| <= c2 |phi'(0)|`: the strong Wolfe conditions.

    Nocedal and Wright 2006, algorithms 3.5 and 3.6, as one loop: `low` is the lowest trial with enough decrease;
    while nothing bounds the sizes above, they double; then `low` and `high` enclose what is sought, and the next trial
    is the minimum of the cubic through both (their eq. 3.59), kept a tenth of the interval away from its ends.

    Args:
        ask: gives value and slope at a size.
        start: at size 0, its slope negative.
        first: the first trial.
        options: c1, c2, trials.

    Returns:
        The accepted trial. After the last trial, the lowest with enough decrease; `start` where there was none.
    """
    low, size = start, first
    high: Trial | None = None
    for _ in range(options.trials):
        found = ask(size)
        enough = found.finite and found.value <= start.value + options.c1 * found.size * start.slope
        if not enough or found.value >= low.value:
            high = found
        elif abs(found.slope) <= -options.c2 * start.slope:
            return found
        else:
            ahead = 1.0 if high is None else high.size - low.size
            if found.slope * ahead >= 0:
                high = low
            low = found
        size = 2 * low.size if high is None else _between_both(low, high)
        if size in (low.size, math.inf) or (high is not None and size == high.size):
            break  # the interval is as small as float64 can have it, or as large
    return low


def _between_both(low: Trial, high: Trial) -> float:
    """Where to look next between two trials, not necessarily in this order."""
    width = high.size - low.size
    if not high.finite:
        return low.size + 0.1 * width
    size = _cubic_minimum(low, high)
    if not math.isfinite(size):
        return low.size + 0.5 * width
    margin = 0.1 * abs(width)
    return min(max(size, min(low.size, high.size) + margin), max(low.size, high.size) - margin)


def _cubic_minimum(a: Trial, b: Trial) -> float:
    """The minimum of the cubic with the values and slopes of both; NaN where it has none."""
    width = b.size - a.size
    bend = a.slope + b.slope - 3 * (b.value - a.value) / width
    square = bend * bend - a.slope * b.slope
    if not 0 <= square < math.inf:
        return math.nan
    root = math.copysign(math.sqrt(square), width)
    below = b.slope - a.slope + 2 * root
    return b.size - width * (b.slope + root - bend) / below if below else math.nan


def _between(name: str, value: object, low: float, high: float) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low < value < high:
        raise ValueError(f"a line search's {name} must be a number between {low:g} and {high:g}, not {value!r}")
