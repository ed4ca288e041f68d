"""The axes of a run's landscape: random, to other states, principal directions of its trajectory, eigenvectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from noiseless.analysis import (
    BatchNorm,
    Normalised,
    difference,
    normalise,
    principal_directions,
    random_direction,
    scaling_text,
)
from noiseless.analysis.landscape import spread
from noiseless.ask.sharpness import eigenvectors
from noiseless.ask.state import RunState, load_state
from noiseless.files import checkpoint
from noiseless.files.address import StateAddress
from noiseless.files.checkpoint import digest
from noiseless.files.parameters import refuse_other_model
from noiseless.files.stored import checkpoint_steps, read_state

Kind = Literal["random", "between", "pca", "eigen"]
LEAST_STATES = 3
"""smallest number of states from which principal directions are computed"""


@dataclass(frozen=True)
class AxesOptions:
    """Which axes a landscape has, and how many points along them."""

    kind: Kind
    others: tuple[StateAddress, ...] = ()
    """for `between`: the state at coordinate 1 of each axis"""
    dimensions: int = 1
    counts: tuple[int, ...] = (21,)
    """number of points along each axis; a single number holds for all axes"""
    reach: float | None = None
    """extent of the axes. random and eigen: from -reach to reach (default 1); between: from -reach to 1 + reach
    (default 0.5); pca: the trajectory's range, extended at both ends by reach times its length (default 0.25)"""
    normalised: Normalised | None = None
    """scaling of the directions, see `analysis.normalise`; None: "filter" for random directions, "none" for
    eigenvectors; directions of between and pca keep their length"""
    seed: int = 0
    """of the random directions"""


@dataclass(frozen=True)
class Axis:
    """One axis of a landscape."""

    label: str
    kind: Kind
    seed: int | None
    """of a random direction; None for other kinds"""
    number: int
    """number of the direction among those of its kind, from 0"""
    normalised: Normalised | None
    points: list[float]
    """coordinates, in ascending order"""
    vector: Tensor
    """the direction, float64 `[P]`"""

    def as_dict(self) -> dict[str, Any]:
        """The axis as an answer holds it, without the vector."""
        return {
            "label": self.label,
            "kind": self.kind,
            "seed": self.seed,
            "number": self.number,
            "normalised": self.normalised,
            "points": self.points,
        }

    def identity(self) -> dict[str, Any]:
        """`as_dict` with a digest of the vector: equal for equal axes only."""
        return self.as_dict() | {"direction": digest({"direction": self.vector})}


@dataclass(frozen=True)
class Trajectory:
    """The coordinates of a run's states along its principal directions."""

    steps: list[int]
    """steps done, of each state"""
    coordinates: list[list[float]]
    """of each state, `[T][K]`"""
    explained: list[float]
    """share of each direction in the sum of squared distances from the last state"""

    def as_dict(self) -> dict[str, Any]:
        """The trajectory as an answer holds it."""
        return {"steps": self.steps, "at": self.coordinates, "explained": self.explained}


def build_axes(
    state: RunState, options: AxesOptions, batch_norm: BatchNorm | None = None
) -> tuple[list[Axis], Trajectory | None]:
    """Builds the axes of a landscape around a run's state.

    Args:
        state: the state at the origin; it is not changed.
        options: which axes.
        batch_norm: the model's mode for Hessian eigenvectors, see `analysis.BatchNorm`; None: its present mode.

    Returns:
        One or two axes, and the trajectory in their coordinates (None for other axes than principal directions).

    Raises:
        ValueError: if the axes cannot be built, with the reason and the remedy.
    """
    if options.dimensions not in (1, 2):
        raise ValueError(f"a landscape has 1 or 2 dimensions, not {options.dimensions}")
    counts = options.counts * options.dimensions if len(options.counts) == 1 else options.counts
    if len(counts) != options.dimensions:
        raise ValueError(f"--points has {len(counts)} numbers for {options.dimensions} axes: give one, or one for each")
    if options.reach is not None and not 0 < options.reach < math.inf:
        raise ValueError(f"--range must be a positive, finite number, not {options.reach}")
    if options.kind != "between" and options.others:
        raise ValueError(f"a second run is for --axes between, not for --axes {options.kind}: leave it out")
    if options.kind in ("between", "pca") and options.normalised not in (None, "none"):
        raise ValueError(
            f"--normalised {options.normalised} is for random directions and eigenvectors; the directions of --axes"
            f" {options.kind} keep their length: leave --normalised out"
        )
    trajectory = None
    if options.kind == "random":
        builders = _random(state, options)
    elif options.kind == "eigen":
        builders = _eigen(state, options, batch_norm)
    elif options.kind == "between":
        builders = _between(state, options)
    else:
        builders, trajectory = _principal(state, options)
    return [build(count) for build, count in zip(builders, counts, strict=True)], trajectory


_Builders = list[Callable[[int], Axis]]
"""one function for each axis: number of points -> axis"""


def _builder(
    label: str, options: AxesOptions, number: int, low: float, high: float, vector: Tensor,
    normalised: Normalised | None = None,
) -> Callable[[int], Axis]:  # fmt: skip
    seed = options.seed if options.kind == "random" else None
    return lambda count: Axis(label, options.kind, seed, number, normalised, spread(low, high, count), vector)


def _random(state: RunState, options: AxesOptions) -> _Builders:
    normalised: Normalised = options.normalised or "filter"
    reach = options.reach or 1.0
    return [
        _builder(
            f"random direction {number} ({scaling_text(normalised)})", options, number, -reach, reach,
            random_direction(state.experiment.space, options.seed, number, normalised), normalised,
        )
        for number in range(options.dimensions)
    ]  # fmt: skip


def _eigen(state: RunState, options: AxesOptions, batch_norm: BatchNorm | None) -> _Builders:
    normalised: Normalised = options.normalised or "none"
    reach = options.reach or 1.0
    vectors = eigenvectors(state, options.dimensions, batch_norm)
    return [
        _builder(
            f"Hessian eigenvector {number + 1} ({scaling_text(normalised)})", options, number, -reach, reach,
            normalise(vector, state.experiment.space, normalised), normalised,
        )
        for number, vector in enumerate(vectors)
    ]  # fmt: skip


def _between(state: RunState, options: AxesOptions) -> _Builders:
    if len(options.others) != options.dimensions:
        raise ValueError(
            f"--axes between needs one other state for each of the {options.dimensions} axes, and {len(options.others)}"
            f" {'is' if len(options.others) == 1 else 'are'} given. Write: noiseless landscape {state.address} OTHER"
            + (" OTHER" if options.dimensions == 2 else "")
        )
    reach = 0.5 if options.reach is None else options.reach
    builders = []
    for number, other in enumerate(options.others):
        tensors, step = _tensors(other)
        try:
            vector = difference(state.experiment.space.theta.detach(), _vector(state, tensors, str(other)))
        except ValueError as error:
            raise ValueError(f"no line leads from {state.address} to {other}: {error}") from None
        builders.append(_builder(f"to {other.directory.path.name}@{step}", options, number, -reach, 1 + reach, vector))
    return builders


def _principal(state: RunState, options: AxesOptions) -> tuple[_Builders, Trajectory]:
    directory = state.address.directory
    steps = [step for step in checkpoint_steps(directory) if step < state.step]
    if len(steps) + 1 < LEAST_STATES:
        raise ValueError(
            f"principal directions need at least {LEAST_STATES} states of the run, and {state.address} has"
            f" {len(steps) + 1} up to step {state.step}: train with --keep-every N to keep a checkpoint every N steps"
        )
    states = []
    for step in steps:
        saved = checkpoint.at(directory.checkpoints, step)
        assert saved is not None
        states.append(_vector(state, saved["model"], f"{directory.path}@{step}"))
    principal = principal_directions([*states, state.experiment.space.theta.detach()], options.dimensions)
    reach, builders = 0.25 if options.reach is None else options.reach, []
    for number, (vector, share) in enumerate(zip(principal.directions, principal.explained.tolist(), strict=True)):
        low, high = principal.coordinates[:, number].min().item(), principal.coordinates[:, number].max().item()
        margin = reach * (high - low)
        label = f"principal direction {number + 1} ({share:.1%} explained)"
        builders.append(_builder(label, options, number, low - margin, high + margin, vector))
    return builders, Trajectory([*steps, state.step], principal.coordinates.tolist(), principal.explained.tolist())


def _vector(state: RunState, tensors: dict[str, Tensor], source: str) -> Tensor:
    """The parameters of another state as a vector `[P]` of this run's parameter space."""
    space = state.experiment.space
    refuse_other_model(state.experiment.model, tensors, source)
    return torch.cat([tensors[name].reshape(-1) for name in space.names]).to(space.device)


def _tensors(address: StateAddress) -> tuple[dict[str, Tensor], int]:
    """Parameters and buffers of a state, and its step."""
    stored = read_state(address)
    if stored.model is not None:
        return stored.model, stored.step
    threads = torch.get_num_threads()  # loading sets the number of threads of the other run
    try:
        return load_state(address).experiment.model.state_dict(), stored.step
    finally:
        torch.set_num_threads(threads)
