"""Directions of a landscape: random and normalised, from one state to another, or along a trajectory.

All are float64 vectors `[P]`, whatever the parameters' dtype. A random one is a pure function of (seed, number), so it
is stored as these two numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from noiseless import keyed
from noiseless.errors import UnknownNameError
from noiseless.objective import ParameterSpace
from noiseless.objective.base import SLICE

Normalised = Literal["filter", "layer", "weight", "none"]
STREAM = "direction"
_DRAW_SIZE = 2**16
"""elements that are drawn at once: a draw needs temporary memory of some 30 int64 numbers per element"""


def random_direction(space: ParameterSpace, seed: int, number: int = 0, normalised: Normalised = "filter") -> Tensor:
    """A standard normal random direction, scaled by the norms of the present parameters (Li et al., arXiv 1712.09913).

    Before scaling, element j is `keyed.normal(seed, "direction", number, j)`: the same on every machine and device up
    to the last bits of log and cos.

    Args:
        space: the parameter space.
        seed: 0 <= seed < 2**64.
        number: which direction of that seed.
        normalised: see `normalise`.

    Returns:
        float64 `[P]`.

    Raises:
        ValueError: if the seed is out of range or the parameters are not finite.
    """
    index = torch.arange(len(space), device="cpu")
    drawn = torch.cat([keyed.normal(seed, STREAM, number, part) for part in index.split(_DRAW_SIZE)])
    return normalise(drawn.to(space.device), space, normalised)


def normalise(direction: Tensor, space: ParameterSpace, normalised: Normalised) -> Tensor:
    """Scales a direction d by the norms of the parameters theta, so that landscapes of different networks compare.

    - `"filter"`: each row d_i of a tensor with two or more dimensions (the weights into one output unit: its first
      dimension) becomes `d_i ||theta_i|| / ||d_i||`; tensors with fewer, biases and the parameters of norms, become 0.
    - `"layer"`: each parameter tensor likewise.
    - `"weight"`: each element becomes `d_j |theta_j|`.
    - `"none"`: all of d becomes `d ||theta|| / ||d||`.

    A part that is 0 in d stays 0. `"filter"` is the scaling of Li et al., arXiv 1712.09913, section 4.

    Args:
        direction: `[P]`.
        space: its present parameters give the norms.
        normalised: which of the four scalings.

    Returns:
        float64 `[P]`.

    Raises:
        UnknownNameError: for an unknown scaling.
        ValueError: if the direction is of another length, or it or the parameters are not finite.
    """
    if normalised not in get_args(Normalised):
        raise UnknownNameError("normalisation", normalised, get_args(Normalised))
    check_direction(direction, space)
    theta = space.theta.detach()
    if not theta.isfinite().all():
        raise ValueError("the parameters hold NaN or infinity: a direction cannot be scaled by their norms")
    if normalised == "none":
        return _scaled(direction.double(), theta.double(), 0)
    parts = []
    for d, w in zip(space.split(direction).values(), space.split(theta).values(), strict=True):
        d, w = d.double(), w.double()
        if normalised == "weight":
            part = d * w.abs()
        elif normalised == "layer":
            part = _scaled(d, w, 0)
        else:
            part = _scaled(d, w, 1) if w.ndim > 1 else torch.zeros_like(d)
        parts.append(part.reshape(-1))
    return torch.cat(parts)


def scaling_text(normalised: Normalised) -> str:
    """A scaling in the label of a landscape's axis."""
    return "of the parameters' norm" if normalised == "none" else f"{normalised}-normalised"


def difference(start: Tensor, end: Tensor) -> Tensor:
    """The direction from one state to another: `end - start`, which is exact for float32 states of similar magnitude.

    Args:
        start: `[P]`.
        end: `[P]`.

    Returns:
        float64 `[P]`.

    Raises:
        ValueError: if the lengths differ, or the states do not.
    """
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(
            f"the two states are {list(start.shape)} and {list(end.shape)}: they are not of one parameter space"
        )
    direction = end.double() - start.double()
    if not direction.any():
        raise ValueError("the two states are equal: there is no direction between them")
    return direction


@dataclass(frozen=True)
class PrincipalDirections:
    """The directions along which the states of a trajectory differ most from its last state."""

    directions: Tensor
    """orthonormal, float64 `[K, P]`; the element that is largest in magnitude is positive in each"""
    coordinates: Tensor
    """of each state along them, from the last state: float64 `[T, K]`; the last row is 0"""
    explained: Tensor
    """share of each in the sum of squared distances from the last state, in descending order, float64 `[K]`"""


def principal_directions(states: Sequence[Tensor], count: int) -> PrincipalDirections:
    """Principal components of a trajectory (Li et al., arXiv 1712.09913, section 7.2).

    With the rows `D_t = theta_t - theta_T`, t = 0 ... T-1, they are the right singular vectors of D, and a component's
    share is `s_k**2 / sum_j s_j**2`. No mean is subtracted: the plane goes through the last state, and no other plane
    through it is nearer to the states. They are computed from the Gram matrix `D D^T [T, T]` in float64, so a component
    whose share is below about 1e-10 is only rounding.

    Args:
        states: `[P]` each, in their order; the directions start at the last one.
        count: K.

    Returns:
        K directions.

    Raises:
        ValueError: if there are fewer than K + 1 states, their lengths differ, they are not finite, or they span fewer
            than K directions.
    """
    if count < 1 or len(states) < count + 1:
        raise ValueError(f"{count} principal directions need at least {count + 1} states, not {len(states)}")
    if len({tuple(state.shape) for state in states}) > 1 or states[0].ndim != 1:
        raise ValueError(f"the states have shapes {[list(s.shape) for s in states]}: they are not of one space")
    length, last = len(states[0]), len(states) - 1
    places = [slice(start, start + SLICE) for start in range(0, length, SLICE)]
    gram = torch.zeros(last, last, dtype=torch.float64, device=states[0].device)
    for place in places:  # all differences at once would be larger than the states
        part = _differences(states, place)
        gram += part @ part.T
    if not gram.isfinite().all():
        raise ValueError("a state of the trajectory holds NaN or infinity: it has no principal directions")
    rising, by_rising = torch.linalg.eigh(gram)
    values, vectors = rising.flip(-1), by_rising.flip(-1)
    spanned = int((values > last * torch.finfo(torch.float64).eps * values[0]).sum())
    if spanned < count:
        raise ValueError(
            f"the {len(states)} states differ along {spanned} direction{'s' * (spanned != 1)} only (the others repeat"
            f" each other): {count} cannot be taken from them"
        )
    weights = vectors[:, :count].T / values[:count, None].sqrt()
    directions = torch.cat([weights @ _differences(states, place) for place in places], 1)
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    coordinates = vectors[:, :count] * values[:count].sqrt() * signs.T
    return PrincipalDirections(
        directions * signs,
        torch.cat([coordinates, torch.zeros_like(coordinates[:1])]),
        values[:count] / values.clamp(min=0).sum(),
    )


def check_direction(direction: Tensor, space: ParameterSpace) -> None:
    """Raises unless a direction is a finite vector of the space.

    Raises:
        ValueError: with its shape, or if it holds NaN or infinity.
    """
    if direction.shape != (len(space),):
        raise ValueError(
            f"a direction of this parameter space has shape [{len(space)}], not {list(direction.shape)}:"
            " is it of another model?"
        )
    if not direction.isfinite().all():
        raise ValueError("a direction holds NaN or infinity")


def _scaled(d: Tensor, w: Tensor, first: int) -> Tensor:
    """The direction d with the norms of w, taken over the dimensions from `first` on; 0 stays 0."""
    dims = list(range(first, d.ndim))
    # torch reduces over all dimensions where the list of dimensions is empty
    length, target = (x.square().sum(dims, keepdim=True).sqrt() if dims else x.abs() for x in (d, w))
    return d * torch.where(length > 0, target / length, 0.0)


def _differences(states: Sequence[Tensor], place: slice) -> Tensor:
    """The elements `place` of all states but the last, minus those of the last: float64 `[T, n]`."""
    last = states[-1][place].double()
    return torch.stack([state[place].double() - last for state in states[:-1]])
