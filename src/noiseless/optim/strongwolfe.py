"""A line search for the strong Wolfe conditions. Step 7 of a training step, if the recipe has one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from noiseless.optim.linesearch import (
    Line,
    LinePoint,
    SearchState,
    SearchStep,
    check_count,
    check_fraction,
    check_switch,
    first_size,
    last_size,
)


@dataclass(frozen=True)
class StrongWolfeSearch:
    """Finds a size with `phi(a) <= phi(0) + c1 a phi'(0)`, `|phi'(a)| <= c2 |phi'(0)|`, the strong Wolfe conditions.

    Nocedal and Wright 2006, algorithms 3.5 and 3.6, as one loop: `low` is the lowest trial with enough decrease. Sizes
    double until a trial bounds them from above. Then `low` and `high` enclose a solution, and the next trial is the
    minimum of the cubic through both (their eq. 3.59), kept a tenth of the interval away from its ends.

    Raises:
        ValueError: for a number out of its range.
    """

    c1: float = 1e-4
    """sufficient decrease, as a share of the decrease that the slope at 0 predicts; between 0 and 1 (default 1e-4, as
    in Nocedal and Wright 2006, section 3.1)"""
    c2: float = 0.9
    """largest slope at the accepted size, as a share of that at 0; between c1 and 1 (default 0.9, as in Nocedal and
    Wright for quasi-Newton directions; they have 0.1 for nonlinear conjugate gradients)"""
    trials: int = 20
    """largest number of evaluations of a search; at least 1 (default 20)"""
    remember: bool = False
    """whether the first trial is twice the last accepted size, at most 1; otherwise it is 1 (default False)"""

    def __post_init__(self) -> None:
        check_fraction("c1", self.c1)
        check_fraction("c2", self.c2)
        if not self.c1 < self.c2:
            raise ValueError(f"a line search's c1 must be below its c2, not {self.c1} and {self.c2}")
        check_count("trials", self.trials)
        check_switch("remember", self.remember)

    def init(self) -> SearchState:
        """The state before the first step: a last accepted size of 1."""
        return {"size": 1.0}

    def step(self, line: Line, state: SearchState) -> SearchStep:
        """Searches along a line.

        Args:
            line: the objective along this step's direction.
            state: the state after the last step.

        Returns:
            The first point that meets both conditions. If none does, the lowest trial with enough decrease;
            `line.start` if there is none.
        """
        point = self._point(line, first_size(self.remember, state))
        return SearchStep(point, {"size": last_size(point, state)})

    def _point(self, line: Line, first: float) -> LinePoint:
        start = low = line.start
        high: LinePoint | None = None
        size = first
        for _ in range(self.trials):
            point = line.evaluate(size)
            enough = point.finite and point.value <= start.value + self.c1 * point.size * start.slope
            if not enough or point.value >= low.value:
                high = point
            elif abs(point.slope) <= -self.c2 * start.slope:
                return point
            else:
                ahead = 1.0 if high is None else high.size - low.size
                if point.slope * ahead >= 0:
                    high = low
                low = point
            size = 2 * low.size if high is None else _between(low, high)
            if size in (low.size, math.inf) or (high is not None and size == high.size):
                break  # float64 has no smaller interval, or no larger one
        return low


def _between(low: LinePoint, high: LinePoint) -> float:
    """The next size to try between two points, in either order."""
    width = high.size - low.size
    if not high.finite:
        return low.size + 0.1 * width
    size = _cubic_minimum(low, high)
    if not math.isfinite(size):
        return low.size + 0.5 * width
    margin = 0.1 * abs(width)
    return min(max(size, min(low.size, high.size) + margin), max(low.size, high.size) - margin)


def _cubic_minimum(a: LinePoint, b: LinePoint) -> float:
    """The minimum of the cubic with the values and slopes of both points; NaN if it has none."""
    width = b.size - a.size
    bend = a.slope + b.slope - 3 * (b.value - a.value) / width
    square = bend * bend - a.slope * b.slope
    if not 0 <= square < math.inf:
        return math.nan
    root = math.copysign(math.sqrt(square), width)
    below = b.slope - a.slope + 2 * root
    return b.size - width * (b.slope + root - bend) / below if below else math.nan
