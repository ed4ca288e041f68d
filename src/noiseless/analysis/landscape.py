"""The landscape around a point: loss, accuracy and penalised loss on a line or in a plane of the parameter space.

A point is one sweep over the full data set, exact as in a training step. The parameters are put back after it, batch
norm's buffers are never written, and a value that is not finite is a gap.
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
"""smallest cosine of two directions that count as parallel: they span no plane"""


@dataclass(frozen=True)
class LandscapePoint:
    """Values of an objective at one point of a landscape; None where one is not finite: a gap."""

    loss: float | None
    accuracy: float | None
    """0 ... 1; None as well where this is no classification"""
    penalised: float | None
    """loss + penalty; None as well where the objective has no penalty"""
    passes: float
    """cost of the point"""


@dataclass(frozen=True)
class LossSurface:
    """The objective on the line `theta + a d_1`, or in the plane `theta + a d_1 + b d_2`.

    theta are the parameters at the time of each evaluation. A point is computed in float64 and rounded to their dtype.

    Raises:
        ValueError: for another number of directions, one of another length, not finite or 0, or two that are parallel.
    """

    objective: Objective
    """a risk takes forwards alone, a penalty takes gradients"""
    directions: Tensor
    """`[1, P]` or `[2, P]`"""
    batch_norm: BatchNorm | None = None
    """the module's mode, see `modes.BatchNorm`; None: the mode in which it stands"""

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
        """The objective at a point; the parameters are put back, also where it cannot be computed.

        Args:
            coordinates: a, or a and b.

        Returns:
            Its values.

        Raises:
            ValueError: for another number of coordinates, or one that is not finite.
        """
        if len(coordinates) != len(self.directions) or not all(map(math.isfinite, coordinates)):
            raise ValueError(f"a point of this landscape has {len(self.directions)} finite numbers, not {coordinates}")
        theta = self.objective.space.theta.detach()
        kept = theta.clone()
        moved = kept.to(torch.float64, copy=True)
        for coordinate, direction in zip(coordinates, self.directions, strict=True):
            moved.add_(direction.to(moved), alpha=coordinate)
        try:
            theta.copy_(moved)
            with module_mode(self.objective.space.module, self.batch_norm):
                measured = self.objective.measure()
        finally:
            self.objective.space.theta.copy_(kept)
        loss = _finite(measured.loss)
        # the largest of scores that are not finite is no prediction
        accuracy = None if loss is None or measured.hits is None else measured.hits / measured.count
        penalised = None if measured.penalty is None else _finite(measured.value)
        return LandscapePoint(loss, accuracy, penalised, measured.passes)


@dataclass(frozen=True)
class LossLandscape:
    """Values of an objective on a grid along one or two directions, float64 `[n]` or `[n, m]`; NaN at a gap."""

    loss: Tensor
    accuracy: Tensor
    penalised: Tensor
    passes: float


def loss_landscape(
    objective: Objective,
    directions: Tensor,
    *axes: Sequence[float],
    batch_norm: BatchNorm | None = None,
    on_point: Callable[[LandscapePoint], None] = lambda point: None,
) -> LossLandscape:
    """Loss, accuracy and penalised loss around the module's parameters, at all combinations of coordinates.

    Args:
        objective: a risk takes forwards alone, a penalty takes gradients.
        directions: `[1, P]` or `[2, P]`.
        axes: the coordinates along each direction, rising.
        batch_norm: the module's mode, see `modes.BatchNorm`; None: the mode in which it stands.
        on_point: called with each point; the last coordinate changes first.

    Returns:
        The values.

    Raises:
        ValueError: for another number of axes, one that is no axis of a grid, or directions that span no landscape.
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
    """Coordinates from one to another in equal steps, both ends exact, and 0 exact where it is the middle.

    Args:
        low: the first.
        high: the last.
        count: how many.

    Returns:
        `((count - 1 - k) low + k high) / (count - 1)` for k = 0 ... count - 1.

    Raises:
        ValueError: if they make no axis of a grid.
    """
    if count < 2:
        raise ValueError(f"a grid needs at least 2 points along each axis, not {count}: one point has no shape")
    points = [((count - 1 - k) * low + k * high) / (count - 1) for k in range(count)]
    check_axis(points)
    return points


def check_axis(points: Sequence[float]) -> None:
    """Raises unless these are at least two finite, rising coordinates.

    Raises:
        ValueError: saying what they are.
    """
    if len(points) < 2:
        raise ValueError(f"a grid needs at least 2 points along each axis, not {len(points)}: one point has no shape")
    if not all(map(math.isfinite, points)) or any(b <= a for a, b in itertools.pairwise(points)):
        raise ValueError(f"the coordinates of an axis must be finite and rise, not {points[0]} ... {points[-1]}")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
