"""The interface of a line search: how far to go along a direction. Step 7 of a training step, if the recipe has one.

A search evaluates a function of one number, `phi(a) = F(theta + a d)` with slope `phi'(a) = grad F(theta + a d) . d`,
at a few sizes a. `searched.py` gives it the direction d of an optimizer. All numbers are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

SearchState = Mapping[str, Any]
"""numbers, strings, booleans, tensors, and lists and dictionaries of them: what a checkpoint can hold"""


@dataclass(frozen=True)
class LinePoint:
    """Value and slope at one size."""

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


@dataclass(frozen=True)
class Line:
    """The objective along a direction."""

    evaluate: Callable[[float], LinePoint]
    """size -> the point at that size; each call costs one evaluation"""
    start: LinePoint
    """the point at size 0; its slope is negative"""
    steepest: bool = False
    """whether the direction is `-lr grad F` instead of the optimizer's"""


@dataclass(frozen=True)
class SearchStep:
    """The result of a search along one line."""

    point: LinePoint
    """where the parameters go; `line.start`: they stay, and the optimizer's memory is cleared"""
    state: SearchState
    """state for the next search"""
    restart: bool = False
    """whether to clear the optimizer's memory and search again along `-lr grad F`; no effect in that second search"""


class LineSearch(Protocol):
    """A rule for how far a step goes. It holds settings alone; what changes from step to step is in its state."""

    def init(self) -> SearchState:
        """The state before the first step."""
        ...

    def step(self, line: Line, state: SearchState) -> SearchStep:
        """Searches along a line.

        Args:
            line: the objective along this step's direction.
            state: from `init`, or the state after the last step; it must not be modified.

        Returns:
            The accepted point and the state for the next step.
        """
        ...


def check_fraction(name: str, value: object) -> None:
    """Raises unless a setting is a number between 0 and 1.

    Raises:
        ValueError: naming the field and its value.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1:
        raise ValueError(f"a line search's {name} must be a number between 0 and 1, not {value!r}")


def check_count(name: str, value: object) -> None:
    """Raises unless a setting is a whole number of at least 1.

    Raises:
        ValueError: naming the field and its value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"a line search's {name} must be a whole number of at least 1, not {value!r}")


def check_switch(name: str, value: object) -> None:
    """Raises unless a setting is True or False.

    Raises:
        ValueError: naming the field and its value.
    """
    if not isinstance(value, bool):
        raise ValueError(f"a line search's {name} must be True or False, not {value!r}")


def first_size(remember: bool, state: SearchState) -> float:
    """The first size to try: 1; with `remember` twice the last accepted size, if that is less."""
    return min(1.0, 2 * state["size"]) if remember else 1.0


def last_size(point: LinePoint, state: SearchState) -> float:
    """The size to remember: that of this step, or of the last step that moved if this one did not."""
    size: float = point.size or state["size"]
    return size
