"""The landscape around a point: loss, accuracy and penalised loss on a line or in a plane of the parameter space.

Each value is one sweep over the full data set, exact as those of a training step. The parameters are put back after
each, batch norm's buffers are never written, and a value that is not finite is a gap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from noiseless.analysis.directions import check_direction
from noiseless.errors import UnknownNameError
from noiseless.objective import Objective

BatchNorm = Literal["block", "running"]
"""`"block"`: statistics of each norm block, as training has them; `"running"`: the module in `eval()`, with the running
statistics that it holds, whatever the point that is asked"""
PARALLEL = 1 - 1e-9
"""cosine of two directions from which on they span no plane"""


@contextmanager
def normed_by(module: nn.Module, batch_norm: BatchNorm) -> Iterator[None]:
    """Within it, the module is in the mode that belongs to a batch-norm mode; afterwards each part is as it was.

    Args:
        module: the model.
        batch_norm: see `BatchNorm`.

    Yields:
        Nothing.

    Raises:
        UnknownNameError: for another mode.
    """
    if batch_norm not in get_args(BatchNorm):
        raise UnknownNameError("batch-norm mode", batch_norm, get_args(BatchNorm))
    modes = [(part, part.training) for part in module.modules()]
    module.train(batch_norm == "block")
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@dataclass(frozen=True)
class Point:
    """What the objective is at one point of a landscape; None where it is not finite: a gap."""

    loss: float | None
    accuracy: float | None
    """0 ... 1; None as well where this is no classification"""
    penalised: float | None
    """loss + penalty; None as well where the objective has no penalty"""
    passes: float
    """what it cost"""


@dataclass(frozen=True)
class Surface:
    """The objective on the line `theta + a d_1`, or in the plane `theta + a d_1 + b d_2`.

    theta are the parameters at the time of each question. A point is computed in float64 and rounded to their dtype.

    Raises:
        ValueError: for another number of directions, one of another length, not finite or 0, or two that are parallel.
    """

    objective: Objective
    """of a risk, loss and accuracy are asked by forwards alone; a penalty takes gradients"""
    directions: Tensor
    """`[1, P]` or `[2, P]`"""
    batch_norm: BatchNorm = "block"

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

    def at(self, *coordinates: float) -> Point:
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
            with normed_by(self.objective.space.module, self.batch_norm):
                found = self.objective.measure()
        finally:
            self.objective.space.theta.copy_(kept)
        loss = _finite(found.loss)
        # of scores that are not finite, the largest says nothing
        accuracy = None if loss is None or found.hits is None else found.hits / found.count
        penalised = None if found.penalty is None else _finite(found.value)
        return Point(loss, accuracy, penalised, found.passes)


@dataclass(frozen=True)
class Grid:
    """A landscape on a grid, float64 `[n]` or `[n, m]`; NaN at a gap."""

    loss: Tensor
    accuracy: Tensor
    penalised: Tensor
    passes: float


def grid(surface: Surface, *axes: Sequence[float], on_point: Callable[[Point], None] = lambda point: None) -> Grid:
    """A surface on the grid of all combinations of coordinates.

    Args:
        surface: what is asked.
        axes: the coordinates along each direction, rising.
        on_point: told of each point, the last coordinate first.

    Returns:
        The grid.

    Raises:
        ValueError: for another number of axes, or one that is no axis of a grid.
    """
    if len(axes) != len(surface.directions):
        raise ValueError(f"the surface has {len(surface.directions)} directions, and {len(axes)} axes are given")
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
    return Grid(loss, accuracy, penalised, math.fsum(p.passes for p in points))


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
