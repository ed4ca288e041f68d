"""The loss landscape: loss, accuracy and penalised loss on a line or in a plane of the parameter space.

Each point is one sweep over the full data set, exact as in a training step. The parameters are restored after it, batch
norm's buffers are never written, and a value that is not finite is a gap (None, or NaN in a tensor).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis.directions import check_direction
from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.objective import Objective

PARALLEL = 1 - 1e-9
"""magnitude of the cosine above which two directions count as parallel and span no plane"""


@dataclass(frozen=True)
class LandscapePoint:
    """Values of an objective at one point of a landscape; None for a value that is not finite (a gap)."""

    loss: float | None
    accuracy: float | None
    """0 ... 1; None also where this is no classification"""
    penalised: float | None
    """loss + penalty; None also where the objective has no penalty"""
    passes: float
    """cost of the point, in passes"""


@dataclass(frozen=True)
class LossSurface:
    """The objective on the line `theta + a d_1`, or in the plane `theta + a d_1 + b d_2`.

    theta are the module's parameters at the time of each evaluation. A point is computed in float64 and rounded to
    their dtype.

    Raises:
        ValueError: if there are not one or two directions, or a direction has another length than P, is not finite or
            0, or two are parallel.
    """

    objective: Objective
    """a risk needs forward passes only, a penalty needs gradients"""
    directions: Tensor
    """`[1, P]` or `[2, P]`"""
    batch_norm: BatchNorm | None = None
    """the module's mode, see `modes.BatchNorm`; None: its present mode"""

    def __post_init__(self) -> None:
        if self.directions.ndim != 2 or not 1 <= len(self.directions) <= 2:
            raise ValueError(f"a landscape takes directions [1, P] or [2, P], not {list(self.directions.shape)}")
        unit = []
        for direction in self.directions.double():
            check_direction(direction, self.objective.space)
            if not direction.any():
                raise ValueError("a direction is 0 in each element: nothing changes along it")
            unit.append(direction / direction.norm())
        if len(unit) == 2 and abs(float(unit[0] @ unit[1])) > PARALLEL:
            raise ValueError("the two directions are parallel: they span no plane; look at one of them")

    def at(self, *coordinates: float) -> LandscapePoint:
        """Evaluates the objective at a point. The parameters are restored afterwards, also after an error.

        Args:
            coordinates: a, or a and b.

        Returns:
            The values at the point.

        Raises:
            ValueError: if there is not one finite coordinate for each direction.
        """
        if len(coordinates) != len(self.directions) or not all(map(math.isfinite, coordinates)):
            raise ValueError(f"a point of this landscape has {len(self.directions)} finite numbers, not {coordinates}")
        theta = self.objective.space.theta.detach()
        saved = theta.clone()
        moved = saved.to(torch.float64, copy=True)
        for coordinate, direction in zip(coordinates, self.directions, strict=True):
            moved.add_(direction.to(moved), alpha=coordinate)
        try:
            theta.copy_(moved)
            with module_mode(self.objective.space.module, self.batch_norm):
                measured = self.objective.measure()
        finally:
            self.objective.space.theta.copy_(saved)
        loss = _finite(measured.loss)
        # the argmax of scores that are not finite is no prediction
        accuracy = None if loss is None else measured.accuracy
        penalised = None if measured.penalty is None else _finite(measured.value)
        return LandscapePoint(loss, accuracy, penalised, measured.passes)


@dataclass(frozen=True)
class LossLandscape:
    """Values of an objective on a grid along one or two directions, float64 `[n]` or `[n, m]`; NaN at a gap."""

    loss: Tensor
    accuracy: Tensor
    penalised: Tensor
    passes: float
    """cost of all points, in passes"""


def loss_landscape(
    objective: Objective,
    directions: Tensor,
    *axes: Sequence[float],
    batch_norm: BatchNorm | None = None,
    on_point: Callable[[LandscapePoint], None] = lambda point: None,
) -> LossLandscape:
    """Evaluates an objective on a grid around the module's parameters.

    Args:
        objective: a risk needs forward passes only, a penalty needs gradients.
        directions: `[1, P]` or `[2, P]`.
        axes: the coordinates along each direction, ascending; the grid has all their combinations.
        batch_norm: the module's mode, see `modes.BatchNorm`; None: its present mode.
        on_point: called with each point; the last coordinate changes fastest.

    Returns:
        Loss, accuracy and penalised loss at each point.

    Raises:
        ValueError: if there is not one axis for each direction, an axis has fewer than 2 points or is not finite and
            ascending, or the directions span no landscape (see `LossSurface`).
    """
    surface = LossSurface(objective, directions, batch_norm)
    if len(axes) != len(directions):
        raise ValueError(f"the landscape has {len(directions)} directions, and {len(axes)} axes are given")
    for axis in axes:
        check_axis(axis)
    points = []
    for coordinates in itertools.product(*axes):
        points.append(surface.at(*coordinates))
        on_point(points[-1])
    shape = [len(axis) for axis in axes]
    values = [[p.loss for p in points], [p.accuracy for p in points], [p.penalised for p in points]]
    filled = [[math.nan if v is None else v for v in column] for column in values]
    loss, accuracy, penalised = torch.tensor(filled, dtype=torch.float64).reshape(3, *shape)
    return LossLandscape(loss, accuracy, penalised, math.fsum(p.passes for p in points))


def spread(low: float, high: float, count: int) -> list[float]:
    """Equally spaced coordinates. Both ends are exact, and 0 is exact where it is the middle.

    Args:
        low: the first coordinate.
        high: the last coordinate.
        count: number of coordinates.

    Returns:
        `((count - 1 - k) low + k high) / (count - 1)` for k = 0 ... count - 1.

    Raises:
        ValueError: for fewer than 2 coordinates, or if they are not finite and ascending.
    """
    if count < 2:
        raise ValueError(f"a grid needs at least 2 points along each axis, not {count}: one point has no shape")
    points = [((count - 1 - k) * low + k * high) / (count - 1) for k in range(count)]
    check_axis(points)
    return points


def check_axis(points: Sequence[float]) -> None:
    """Raises unless there are at least two coordinates, finite and in ascending order.

    Raises:
        ValueError: with their number, or the first and the last.
    """
    if len(points) < 2:
        raise ValueError(f"a grid needs at least 2 points along each axis, not {len(points)}: one point has no shape")
    if not all(map(math.isfinite, points)) or any(b <= a for a, b in itertools.pairwise(points)):
        raise ValueError(f"the coordinates of an axis must be finite and rise, not {points[0]} ... {points[-1]}")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
