"""Average-direction flatness: the rise of the objective at a given distance, averaged over random directions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from noiseless.analysis.directions import Normalised, random_direction
from noiseless.analysis.landscape import LossSurface
from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.objective import Objective

LEAST = 4
"""smallest number of directions for which the standard error is used"""


@dataclass(frozen=True)
class Flatness:
    """The mean rise of an objective along random directions, with its standard error."""

    mean: float | None
    """mean of the increases; None if one of them is not finite"""
    standard_error: float | None
    """standard error of the mean; None if an increase is not finite"""
    increases: list[float | None]
    """increase along each direction; None where it is not finite"""
    stopped: Literal["converged", "bound", "not finite"]
    """why no further direction was evaluated: error within the tolerance, `most` reached, or a value not finite"""
    passes: float
    """cost, in passes"""


def average_flatness(
    objective: Objective,
    radius: float,
    normalised: Normalised = "filter",
    *,
    seed: int = 0,
    batch_norm: BatchNorm | None = None,
    tolerance: float = 0.1,
    most: int = 100,
    on_direction: Callable[[float | None], None] = lambda increase: None,
) -> Flatness:
    """The mean rise of the objective along random directions.

    With `u_i = random_direction(space, seed, i, normalised)` and x_i = `L(theta + radius u_i) - L(theta)`,

        mean = (1 / n) sum_i x_i,    standard error = sqrt(sum_i (x_i - mean)**2 / (n (n - 1))).

    Directions are evaluated in turn until `standard error <= tolerance |mean|`, with n >= 4, until n = most, or until a
    value is not finite. For a quadratic with Hessian H at its minimum and `"none"`, where `||u_i|| = ||theta||`, the
    expectation is `radius**2 ||theta||**2 tr(H) / (2 P)`. To stop by the measured error biases mean and error slightly;
    a fixed number of directions (tolerance 0) does not.

    Args:
        objective: its value is L; pass the risk to leave a penalty out. A risk needs forward passes only.
        radius: length of the step, as a multiple of u_i.
        normalised: see `directions.normalise`.
        seed: of the directions.
        batch_norm: the module's mode, see `modes.BatchNorm`; None: its present mode.
        tolerance: of the standard error, relative to the mean; 0: always `most` directions.
        most: largest number of directions.
        on_direction: called with each increase; None where it is not finite.

    Returns:
        Mean, standard error and the increases.

    Raises:
        ValueError: if radius, tolerance or `most` is out of range, or the value is not finite at theta itself.
    """
    if not 0 < radius < math.inf:
        raise ValueError(f"the radius of flatness must be a positive, finite number, not {radius}")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"the tolerance of flatness must be a finite number of at least 0, not {tolerance}")
    if most < LEAST:
        raise ValueError(f"flatness needs a bound of at least {LEAST} directions, not {most}")
    with module_mode(objective.space.module, batch_norm):
        here = objective.measure()
    if not math.isfinite(here.value):
        raise ValueError(f"the loss is {here.value} at the point itself: there is no flatness to measure")
    increases: list[float] = []
    passes = [here.passes]
    for number in range(most):
        direction = random_direction(objective.space, seed, number, normalised)
        point = LossSurface(objective, direction[None], batch_norm).at(radius)
        passes.append(point.passes)
        value = point.loss if here.penalty is None else point.penalised
        on_direction(None if value is None else value - here.value)
        if value is None:
            return Flatness(None, None, [*increases, None], "not finite", math.fsum(passes))
        increases.append(value - here.value)
        mean, error = _mean(increases)
        if tolerance and len(increases) >= LEAST and error <= tolerance * abs(mean):
            return Flatness(mean, error, list(increases), "converged", math.fsum(passes))
    return Flatness(mean, error, list(increases), "bound", math.fsum(passes))


def _mean(values: list[float]) -> tuple[float, float]:
    """The mean of some values and its standard error, which is infinite for one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.inf
    return mean, math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n * (n - 1)))
