"""Norms of the parameters, tensor by tensor: their size, their distance from the start, and the size of an update."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from noiseless.objective import ParameterSpace
from noiseless.objective.base import square_norms


@dataclass(frozen=True)
class Weights:
    """L2 norms at a state theta: of one parameter tensor, or of all parameters together."""

    norm: float
    """`||theta||`"""
    distance: float | None
    """`||theta - start||`; None without a start"""
    gradient_norm: float | None
    """`||g||`; None without a gradient"""
    update_norm: float | None
    """`||u||`; None without an update"""

    @property
    def update_ratio(self) -> float | None:
        """`||u|| / ||theta||`; None without an update, or where theta is zero."""
        return None if self.update_norm is None or not self.norm else self.update_norm / self.norm

    def as_row(self) -> dict[str, float | None]:
        """The numbers that a row of a run's record holds."""
        return {
            "norm": self.norm,
            "distance": self.distance,
            "gradient_norm": self.gradient_norm,
            "update_ratio": self.update_ratio,
        }


def weights(
    space: ParameterSpace,
    *,
    theta: Tensor | None = None,
    start: Tensor | None = None,
    gradient: Tensor | None = None,
    update: Tensor | None = None,
) -> tuple[Weights, dict[str, Weights]]:
    """Norm, distance from the start, gradient norm and update norm, of all parameters and of each tensor.

    Differences and squares are taken in float64.

    Args:
        space: of the parameters.
        theta: the state, `[P]`; None: the module's present parameters.
        start: the state from which distances are measured, `[P]`.
        gradient: g, `[P]`.
        update: u, what a step adds to theta, `[P]`.

    Returns:
        The numbers of all parameters together, and those of each tensor by its name.

    Raises:
        ValueError: if a vector is not `[P]`.
    """
    theta = space.theta if theta is None else theta
    for name, vector in (("theta", theta), ("start", start), ("gradient", gradient), ("update", update)):
        if vector is not None and vector.shape != (len(space),):
            raise ValueError(f"{name} must have shape [{len(space)}], not {list(vector.shape)}")
    theta_sq = _squares(space, theta)
    distance_sq = None if start is None else _squares(space, theta, start)
    gradient_sq = None if gradient is None else _squares(space, gradient)
    update_sq = None if update is None else _squares(space, update)
    layers = {
        name: Weights(math.sqrt(theta_sq[name]), *(None if part is None else math.sqrt(part[name]) for part in parts))
        for parts in [(distance_sq, gradient_sq, update_sq)]
        for name in space.names
    }
    sums = [
        None if part is None else math.sqrt(math.fsum(part.values())) for part in (distance_sq, gradient_sq, update_sq)
    ]
    return Weights(math.sqrt(math.fsum(theta_sq.values())), *sums), layers


def layers_of(
    space: ParameterSpace, start: Tensor, before: Tensor, gradient: Tensor
) -> dict[str, dict[str, float | None]]:
    """The norms of each parameter tensor after a step, for a row of a run's record.

    Args:
        space: its present parameters are the state after the step.
        start: the state at the run's start, `[P]`.
        before: the state before the step, `[P]`.
        gradient: of the step, `[P]`.

    Returns:
        For each parameter's name: `norm`, `distance`, `gradient_norm`, and `update_ratio`, which is
        `||theta - before|| / ||theta||`.
    """
    update = space.theta.detach().double() - before.to(space.device).double()
    _, layers = weights(space, start=start, gradient=gradient, update=update)
    return {name: layer.as_row() for name, layer in layers.items()}


def _squares(space: ParameterSpace, vector: Tensor, other: Tensor | None = None) -> dict[str, float]:
    """The squared norm of each parameter's part of `vector`, or of `vector - other`, by the parameter's name."""
    squares = {}
    parts = vector.detach().split(space.sizes)
    others = [None] * len(parts) if other is None else other.detach().to(vector.device).split(space.sizes)
    for name, part, other_part in zip(space.names, parts, others, strict=True):
        squares[name] = float(square_norms(part if other_part is None else part.double() - other_part.double()))
    return squares
