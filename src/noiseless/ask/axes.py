"""The axes of a run's landscape: random directions, those to other states, and those of its own trajectory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from noiseless.analysis import Normalised, difference, normalise, principal_directions, random_direction
from noiseless.analysis.landscape import spread
from noiseless.ask.asking import Asked, Place, ask, find, steps_kept
from noiseless.ask.sharpness import eigenvectors
from noiseless.files import checkpoint
from noiseless.files.checkpoint import digest
from noiseless.files.parameters import refuse_other_model

Kind = Literal["random", "between", "pca", "eigen"]
LEAST_STATES = 3
"""of a trajectory with principal directions"""


@dataclass(frozen=True)
class Wanted:
    """What is asked of a landscape."""

    kind: Kind
    others: tuple[Place, ...] = ()
    """of `between`: the states that lie at 1 along each axis"""
    dimensions: int = 1
    counts: tuple[int, ...] = (21,)
    """points along each axis; one number: along all"""
    reach: float | None = None
    """how far: random and eigen from -reach to reach (default 1); between from -reach to 1 + reach (default 0.5); pca
    as many times the trajectory's extent beyond it (default 0.25)"""
    normalised: Normalised | None = None
    """None: "filter" for random directions, "none" for eigenvectors; the others keep their length"""
    seed: int = 0
    """of random directions"""


@dataclass(frozen=True)
class Axis:
    """One axis of a landscape."""

    label: str
    kind: Kind
    seed: int | None
    number: int
    """of the direction among those of its kind"""
    normalised: Normalised | None
    points: list[float]
    """coordinates, rising"""
    vector: Tensor
    """the direction, float64 `[P]`"""

    def described(self) -> dict[str, Any]:
        """What an answer says of it."""
        return {
            "label": self.label,
            "kind": self.kind,
            "seed": self.seed,
            "number": self.number,
            "normalised": self.normalised,
            "points": self.points,
        }

    def asked(self) -> dict[str, Any]:
        """What tells it from others: the direction as well, by its digest."""
        return self.described() | {"direction": digest({"direction": self.vector})}


@dataclass(frozen=True)
class Trajectory:
    """Where the states of a run lie in the plane of its principal directions."""

    steps: list[int]
    at: list[list[float]]
    """coordinates of each, `[T][K]`"""
    explained: list[float]
    """share of each direction in the sum of squared distances from the last state"""

    def described(self) -> dict[str, Any]:
        """What an answer says of it."""
        return {"steps": self.steps, "at": self.at, "explained": self.explained}


def make(asked: Asked, wanted: Wanted) -> tuple[list[Axis], Trajectory | None]:
    """The axes that are wanted, from a run at one of its states.

    Args:
        asked: the run; left as it is.
        wanted: which axes.

    Returns:
        One or two axes; with principal directions, the trajectory along them.

    Raises:
        ValueError: if they cannot be made, saying why and what to do.
    """
    if wanted.dimensions not in (1, 2):
        raise ValueError(f"a landscape has 1 or 2 dimensions, not {wanted.dimensions}")
    counts = wanted.counts * wanted.dimensions if len(wanted.counts) == 1 else wanted.counts
    if len(counts) != wanted.dimensions:
        raise ValueError(f"--points has {len(counts)} numbers for {wanted.dimensions} axes: give one, or one each")
    if wanted.reach is not None and not 0 < wanted.reach < math.inf:
        raise ValueError(f"--range must be a positive, finite number, not {wanted.reach}")
    if wanted.kind != "between" and wanted.others:
        raise ValueError(f"a second run is for --axes between, not for --axes {wanted.kind}")
    if wanted.kind in ("between", "pca") and wanted.normalised not in (None, "none"):
        raise ValueError(
            f"--normalised {wanted.normalised} is for random directions and eigenvectors: those of --axes {wanted.kind}"
            " keep the length that they have"
        )
    trajectory = None
    if wanted.kind == "random":
        found = _random(asked, wanted)
    elif wanted.kind == "eigen":
        found = _eigen(asked, wanted)
    elif wanted.kind == "between":
        found = _between(asked, wanted)
    else:
        found, trajectory = _principal(asked, wanted)
    return [make_axis(count) for make_axis, count in zip(found, counts, strict=True)], trajectory


_Makers = list[Callable[[int], Axis]]
"""number of points -> axis, for each"""


def _maker(
    label: str, wanted: Wanted, number: int, low: float, high: float, vector: Tensor,
    normalised: Normalised | None = None,
) -> Callable[[int], Axis]:  # fmt: skip
    seed = wanted.seed if wanted.kind == "random" else None
    return lambda count: Axis(label, wanted.kind, seed, number, normalised, spread(low, high, count), vector)


def _random(asked: Asked, wanted: Wanted) -> _Makers:
    how: Normalised = wanted.normalised or "filter"
    reach = wanted.reach or 1.0
    return [
        _maker(
            f"random direction {number} ({_said(how)})", wanted, number, -reach, reach,
            random_direction(asked.experiment.space, wanted.seed, number, how), how,
        )
        for number in range(wanted.dimensions)
    ]  # fmt: skip


def _eigen(asked: Asked, wanted: Wanted) -> _Makers:
    how: Normalised = wanted.normalised or "none"
    reach = wanted.reach or 1.0
    vectors = eigenvectors(asked, wanted.dimensions)
    return [
        _maker(
            f"Hessian eigenvector {number + 1} ({_said(how)})", wanted, number, -reach, reach,
            normalise(vector, asked.experiment.space, how), how,
        )
        for number, vector in enumerate(vectors)
    ]  # fmt: skip


def _between(asked: Asked, wanted: Wanted) -> _Makers:
    if len(wanted.others) != wanted.dimensions:
        raise ValueError(
            f"--axes between needs one other state for each of the {wanted.dimensions} axes, and {len(wanted.others)}"
            f" {'is' if len(wanted.others) == 1 else 'are'} given: noiseless landscape {asked.place} OTHER"
            + (" OTHER" if wanted.dimensions == 2 else "")
        )
    reach = 0.5 if wanted.reach is None else wanted.reach
    makers = []
    for number, other in enumerate(wanted.others):
        state, step = _state(other)
        try:
            vector = difference(asked.experiment.space.theta.detach(), _vector(asked, state, str(other)))
        except ValueError as error:
            raise ValueError(f"no line leads from {asked.place} to {other}: {error}") from None
        makers.append(_maker(f"to {other.directory.path.name}@{step}", wanted, number, -reach, 1 + reach, vector))
    return makers


def _principal(asked: Asked, wanted: Wanted) -> tuple[_Makers, Trajectory]:
    directory = asked.place.directory
    steps = [step for step in steps_kept(directory) if step < asked.step]
    if len(steps) + 1 < LEAST_STATES:
        raise ValueError(
            f"principal directions need at least {LEAST_STATES} states of the run, and {asked.place} has"
            f" {len(steps) + 1} up to step {asked.step}: noiseless train --keep-every N keeps a checkpoint each N steps"
        )
    states = []
    for step in steps:
        state = checkpoint.at(directory.checkpoints, step)
        assert state is not None
        states.append(_vector(asked, state["model"], f"{directory.path}@{step}"))
    found = principal_directions([*states, asked.experiment.space.theta.detach()], wanted.dimensions)
    margin, makers = 0.25 if wanted.reach is None else wanted.reach, []
    for number, (vector, share) in enumerate(zip(found.directions, found.explained.tolist(), strict=True)):
        low, high = found.coordinates[:, number].min().item(), found.coordinates[:, number].max().item()
        beyond = margin * (high - low)
        label = f"principal direction {number + 1} ({share:.1%} explained)"
        makers.append(_maker(label, wanted, number, low - beyond, high + beyond, vector))
    return makers, Trajectory([*steps, asked.step], found.coordinates.tolist(), found.explained.tolist())


def _vector(asked: Asked, state: dict[str, Tensor], source: str) -> Tensor:
    """The parameters of a state as a vector of the run's space, `[P]`."""
    space = asked.experiment.space
    refuse_other_model(asked.experiment.model, state, source)
    return torch.cat([state[name].reshape(-1) for name in space.names]).to(space.device)


def _state(place: Place) -> tuple[dict[str, Tensor], int]:
    """Parameters and buffers of a place, and its step."""
    found = find(place)
    if found.model is not None:
        return found.model, found.step
    threads = torch.get_num_threads()  # of the run that is asked; this one may have others
    try:
        return ask(place).experiment.model.state_dict(), found.step
    finally:
        torch.set_num_threads(threads)


def _said(how: Normalised) -> str:
    return "of the parameters' norm" if how == "none" else f"{how}-normalised"
