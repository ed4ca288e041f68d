"""The landscape of a run as a job that can be killed and continued: each point is written as soon as it is computed."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from noiseless.analysis import BatchNorm, LandscapePoint, LossSurface
from noiseless.ask.axes import AxesOptions, Axis, Trajectory, build_axes
from noiseless.ask.state import RunState
from noiseless.files import answers
from noiseless.files.answers import Answer
from noiseless.files.checkpoint import digest
from noiseless.files.pointfile import Index, PointFile
from noiseless.objective import Objective
from noiseless.objective.base import FORWARD
from noiseless.objective.workers import SweepStoppedError
from noiseless.run.session import in_first

KIND = "landscape"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class LandscapeJob:
    """A landscape of a run, with the points computed so far."""

    state: RunState
    axes: list[Axis]
    trajectory: Trajectory | None
    surface: LossSurface
    file: PointFile[LandscapePoint]
    """the points computed so far"""
    name: str
    """of the answer"""

    @property
    def indices(self) -> list[Index]:
        """Grid positions of all points, row by row."""
        return list(itertools.product(*(range(len(axis.points)) for axis in self.axes)))

    @property
    def cost(self) -> float:
        """Cost of one point, in passes."""
        images = len(self.state.experiment.train)
        return (1.0 if self.file.header["penalty"] else FORWARD) * self.state.risk.blocks.count / images


def prepare(
    state: RunState,
    options: AxesOptions,
    batch_norm: BatchNorm = "block",
    penalised: bool = True,
    name: str | None = None,
) -> LandscapeJob:
    """Builds a landscape's axes and opens its file. It computes no point and writes nothing.

    Args:
        state: the run's state at the origin; every worker must call this.
        options: the axes.
        batch_norm: the model's mode, see `analysis.BatchNorm`.
        penalised: whether the penalised loss is computed too, where the run has a penalty.
        name: of the answer; None: a name built from the options.

    Returns:
        The job.

    Raises:
        ValueError: if the name is no part of a file name, the axes cannot be built, or the workers' axes differ.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise ValueError(f"--name must be of letters, digits, '.', '_' and '-', as it is part of a file name: {name!r}")
    axes, trajectory = build_axes(state, options, batch_norm)
    penalty = state.penalised if penalised else None
    objective: Objective = penalty or state.risk
    surface = LossSurface(objective, torch.stack([axis.vector for axis in axes]), batch_norm)
    header: dict[str, Any] = {
        "step": state.step,
        "state": digest(state.experiment.model.state_dict()),
        "batch_norm": batch_norm,
        "penalty": penalty and {"strength": penalty.strength, "full_strength": penalty.full_strength, "lr": penalty.lr},
        "axes": [axis.identity() for axis in axes],
    }
    if len(set(state.experiment.workers.exchange(json.dumps(header)))) > 1:
        raise ValueError(
            "the workers computed different directions, as their machines or libraries round differently: use workers"
            " with the same hardware and software, or a single one"
        )
    name = name or _name(state.step, options, axes, header)
    path = state.address.directory.path / answers.FOLDER / f"{KIND}-{name}.jsonl"
    return LandscapeJob(state, axes, trajectory, surface, PointFile(path, header, LandscapePoint), name)


def carry_out(
    job: LandscapeJob,
    on_start: Callable[[int, int], None] = lambda done, total: None,
    on_point: Callable[[LandscapePoint, float], None] = lambda point, seconds: None,
) -> Answer:
    """Computes the points that are missing. If it is stopped, it writes an answer with the points computed so far.

    Args:
        job: the landscape; every worker must call this.
        on_start: called once, with the number of points computed earlier and the number of all points.
        on_point: called with each new point and the seconds that it took.

    Returns:
        The answer.

    Raises:
        ValueError: if another process holds the file of the points, or it holds another landscape.
        SweepStoppedError: if a worker was told to stop; all workers raise it.
    """
    directory, file, workers = job.state.address.directory, job.file, job.state.experiment.workers
    first = workers.rank == 0
    if first:
        answers.folder(directory)
    with in_first(workers, file.opened):
        known = {tuple(index) for index in json.loads(workers.exchange(json.dumps(list(file.points)))[0])}
        on_start(len(known), len(job.indices))
        try:
            for index in job.indices:
                if index in known:
                    continue
                start = time.perf_counter()
                point = job.surface.at(*(axis.points[k] for axis, k in zip(job.axes, index, strict=True)))
                if first:
                    file.add(index, point)
                on_point(point, time.perf_counter() - start)
        except SweepStoppedError:
            if first:
                answers.write(directory, answer(job))
            raise
    return answer(job)


def answer(job: LandscapeJob) -> Answer:
    """The answer with the points computed so far.

    Args:
        job: the landscape, with the points of its file.

    Returns:
        The answer, with None for each value that is missing or not finite.
    """
    points = job.file.points
    known = [points.get(index) for index in job.indices]
    columns = {
        name: _rows([None if point is None else getattr(point, name) for point in known], job.axes)
        for name in ("loss", "accuracy", "penalised")
    }
    penalty = job.file.header["penalty"]
    values = {
        "step": job.state.step,
        "axes": [axis.as_dict() for axis in job.axes],
        "loss": columns["loss"],
        "accuracy": columns["accuracy"],
        "penalised": columns["penalised"] if penalty else None,
        "penalty": penalty,
        "batch_norm": job.surface.batch_norm,
        "trajectory": job.trajectory and job.trajectory.as_dict(),
        "passes": math.fsum(point.passes for point in points.values()),
        "done": len(points),
        "total": len(known),
        "gaps": sum(point.loss is None for point in points.values()),
    }
    return Answer(KIND, job.name, values)


def _rows(values: list[float | None], axes: list[Axis]) -> list[Any]:
    """Values in the shape of the grid, `[n]` or `[n][m]`."""
    if len(axes) == 1:
        return values
    width = len(axes[1].points)
    return [values[start : start + width] for start in range(0, len(values), width)]


def _name(step: int, options: AxesOptions, axes: list[Axis], header: dict[str, Any]) -> str:
    """A readable name that ends in a digest of the header, so that no other landscape of the run has it."""
    size = "x".join(str(len(axis.points)) for axis in axes)
    words = [f"step{step}", options.kind, *([axes[0].normalised] if axes[0].normalised else []), size]
    return "-".join([*words, hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:8]])
