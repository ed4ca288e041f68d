"""Backtracking line searches, which try smaller and smaller sizes. Step 7 of a training step, if the recipe has one."""

from __future__ import annotations

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
class Backtracking:
    """Base of the searches of this file: settings, and the loop over smaller and smaller sizes.

    Raises:
        ValueError: for a number out of its range.
    """

    c1: float = 1e-4
    """sufficient decrease, as a share of the decrease that the slope at 0 predicts; between 0 and 1 (default 1e-4, as
    in Nocedal and Wright 2006, section 3.1)"""
    shrink: float = 0.5
    """factor from one trial to the next; between 0 and 1 (default 0.5, as in Armijo 1966)"""
    trials: int = 20
    """largest number of evaluations of a search; at least 1 (default 20: sizes down to 2e-6)"""

    def __post_init__(self) -> None:
        check_fraction("c1", self.c1)
        check_fraction("shrink", self.shrink)
        check_count("trials", self.trials)

    def backtrack(self, line: Line, reference: float, first: float) -> LinePoint:
        """Tries `a = first * shrink**k`, k = 0, 1, ..., until `phi(a) <= reference + c1 a phi'(0)`.

        Args:
            line: the objective along the direction.
            reference: the value to compare with, at least phi(0).
            first: the first size.

        Returns:
            The accepted point; `line.start` if no trial is low enough.
        """
        for k in range(self.trials):
            point = line.evaluate(first * self.shrink**k)
            if point.finite and point.value <= reference + self.c1 * point.size * line.start.slope:
                return point
        return line.start


@dataclass(frozen=True)
class ArmijoSearch(Backtracking):
    """Backtracking by Armijo's rule: the first `a = first * shrink**k` with `phi(a) <= phi(0) + c1 a phi'(0)`.

    (Armijo, Pacific J. Math. 16, 1966; Nocedal and Wright 2006, algorithm 3.1.)

    Raises:
        ValueError: for a number out of its range.
    """

    remember: bool = False
    """whether the first trial is twice the last accepted size, at most 1; otherwise it is 1 (default False)"""

    def __post_init__(self) -> None:
        super().__post_init__()
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
            The first point that is low enough; `line.start` if no trial is.
        """
        first = first_size(self.remember, state)
        point = self.backtrack(line, line.start.value, first)
        return SearchStep(point, {"size": last_size(point, state)})


@dataclass(frozen=True)
class NonMonotoneSearch(Backtracking):
    """Backtracking against the largest of the last M values: `phi(a) <= max(values) + c1 a phi'(0)`.

    (Grippo, Lampariello and Lucidi, SIAM J. Numer. Anal. 23, 1986, doi 10.1137/0723046.) `phi(0)` is one of the M
    values, so with M = 1 this is `ArmijoSearch`.

    Raises:
        ValueError: for a number out of its range.
    """

    remember: bool = False
    """whether the first trial is twice the last accepted size, at most 1; otherwise it is 1 (default False)"""
    memory: int = 10
    """M, number of values; at least 1 (default 10, as in Birgin, Martinez and Raydan, SIAM J. Optim. 10, 2000)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_switch("remember", self.remember)
        check_count("memory", self.memory)

    def init(self) -> SearchState:
        """The state before the first step: no values, and a last accepted size of 1."""
        return {"values": [], "size": 1.0}

    def step(self, line: Line, state: SearchState) -> SearchStep:
        """Searches along a line.

        Args:
            line: the objective along this step's direction.
            state: the state after the last step.

        Returns:
            The first point that is low enough; `line.start` if no trial is.
        """
        values = last_values(line, state, self.memory)
        first = first_size(self.remember, state)
        point = self.backtrack(line, max(values), first)
        return SearchStep(point, {"values": values, "size": last_size(point, state)})


@dataclass(frozen=True)
class RestartingSearch(Backtracking):
    """Takes the optimizer's full step if its value is at most the largest of the last M values; else restarts.

    A restart clears the optimizer's memory and steps along the negative gradient, by Armijo's rule with lr as the first
    trial. This search is for methods with momentum, whose values may rise for some steps.

    Raises:
        ValueError: for a number out of its range.
    """

    memory: int = 10
    """M, number of values; at least 1 (default 10, as in Birgin, Martinez and Raydan, SIAM J. Optim. 10, 2000)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("memory", self.memory)

    def init(self) -> SearchState:
        """The state before the first step: no values."""
        return {"values": []}

    def step(self, line: Line, state: SearchState) -> SearchStep:
        """Searches along a line.

        Args:
            line: the objective along this step's direction.
            state: the state after the last step.

        Returns:
            The point at size 1, or a restart; along the negative gradient, the first point that is low enough.
        """
        values = last_values(line, state, self.memory)
        if line.steepest:
            point = self.backtrack(line, line.start.value, 1.0)
            return SearchStep(point, {"values": values})
        point = line.evaluate(1.0)
        if point.finite and point.value <= max(values):
            return SearchStep(point, {"values": values})
        return SearchStep(line.start, state, restart=True)  # the search along the gradient adds the value


def last_values(line: Line, state: SearchState, memory: int) -> list[float]:
    """The values at the starts of the last steps, including this one: at most `memory` of them."""
    return [*state["values"], line.start.value][-memory:]
