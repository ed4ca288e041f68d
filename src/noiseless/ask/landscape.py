"""The landscape of a run as a job that can be killed: each point is written down when it is found, and asked once."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from noiseless.analysis import BatchNorm, LandscapePoint, LossSurface
from noiseless.ask.asking import Asked, Place, ask
from noiseless.ask.axes import Axis, Trajectory, Wanted, make
from noiseless.files import answers
from noiseless.files.answers import Answer
from noiseless.files.checkpoint import digest
from noiseless.files.pointfile import Index, PointFile
from noiseless.objective import Objective
from noiseless.objective.base import FORWARD
from noiseless.objective.workers import SweepStoppedError, Workers
from noiseless.run.session import in_first
from noiseless.run.team import refuse_disagreement

KIND = "landscape"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Survey:
    """A landscape that is asked for, and what of it is known."""

    asked: Asked
    axes: list[Axis]
    trajectory: Trajectory | None
    surface: LossSurface
    file: PointFile
    name: str

    @property
    def indices(self) -> list[Index]:
        """Places of all points, row by row."""
        return list(itertools.product(*(range(len(axis.points)) for axis in self.axes)))

    @property
    def cost(self) -> float:
        """Passes of a point."""
        whole = len(self.asked.experiment.train)
        return (1.0 if self.file.header["penalty"] else FORWARD) * self.asked.risk.blocks.count / whole


def prepare(
    place: Place,
    wanted: Wanted,
    workers: Workers,
    batch_norm: BatchNorm = "block",
    penalised: bool = True,
    name: str | None = None,
) -> Survey:
    """Makes what a landscape needs; nothing is asked and nothing written yet.

    Args:
        place: the run, and the state at 0 on each axis.
        wanted: the axes.
        workers: who share each sweep; each of them calls this.
        batch_norm: see `BatchNorm`.
        penalised: whether the penalised loss is asked as well, where the run has a penalty.
        name: of the answer; None: one that follows from what is asked.

    Returns:
        The survey.

    Raises:
        ValueError: if the run has no such state, or the axes cannot be made.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise ValueError(f"--name must be of letters, digits, '.', '_' and '-', as part of a file's name, not {name!r}")
    asked = ask(place, workers)
    if workers.count > 1:
        refuse_disagreement(workers, asked.experiment)
    axes, trajectory = make(asked, wanted)
    penalty = asked.penalised if penalised else None
    objective: Objective = penalty or asked.risk
    surface = LossSurface(objective, torch.stack([axis.vector for axis in axes]), batch_norm)
    header: dict[str, Any] = {
        "step": asked.step,
        "state": digest(asked.experiment.model.state_dict()),
        "batch_norm": batch_norm,
        "penalty": penalty and {"strength": penalty.strength, "full_strength": penalty.full_strength, "lr": penalty.lr},
        "axes": [axis.asked() for axis in axes],
    }
    if len(set(workers.exchange(json.dumps(header)))) > 1:
        raise ValueError("the workers found different states or directions: a machine or a library computes otherwise")
    name = name or _name(asked.step, wanted, axes, header)
    path = place.directory.path / answers.FOLDER / f"{KIND}-{name}.jsonl"
    return Survey(asked, axes, trajectory, surface, PointFile(path, header), name)


def carry_out(
    survey: Survey,
    workers: Workers,
    on_start: Callable[[int, int], None] = lambda done, total: None,
    on_point: Callable[[LandscapePoint, float], None] = lambda point, seconds: None,
) -> tuple[Answer, Path]:
    """Asks for the points that are not known yet, and writes the answer; also of a part, where it is stopped.

    Args:
        survey: what is asked.
        workers: who share each sweep; each of them calls this.
        on_start: told how many points are known, and how many there are.
        on_point: told of each point, and of the seconds that it took.

    Returns:
        The answer, and its file.

    Raises:
        ValueError: if the file of the points is another process's, or holds another landscape.
        SweepStoppedError: if a worker was told to stop; all raise it.
    """
    directory, file = survey.asked.place.directory, survey.file
    first = workers.rank == 0
    if first:
        answers.folder(directory)
    with in_first(workers, file.opened):
        known = {tuple(each) for each in json.loads(workers.exchange(json.dumps(list(file.points)))[0])}
        on_start(len(known), len(survey.indices))
        try:
            for index in survey.indices:
                if index in known:
                    continue
                began = time.perf_counter()
                point = survey.surface.at(*(axis.points[k] for axis, k in zip(survey.axes, index, strict=True)))
                if first:
                    file.add(index, point)
                on_point(point, time.perf_counter() - began)
        except SweepStoppedError:
            if first:
                answers.write(directory, answer(survey))
            raise
        found = answer(survey)
        path = answers.write(directory, found) if first else directory.path
        return found, path


def answer(survey: Survey) -> Answer:
    """What is known of a landscape.

    Args:
        survey: with the points of its file.

    Returns:
        The answer; None at a point that is missing or not finite.
    """
    points = survey.file.points
    known = [points.get(index) for index in survey.indices]
    columns = {
        name: _rows([None if point is None else getattr(point, name) for point in known], survey.axes)
        for name in ("loss", "accuracy", "penalised")
    }
    penalty = survey.file.header["penalty"]
    found = {
        "step": survey.asked.step,
        "axes": [axis.described() for axis in survey.axes],
        "loss": columns["loss"],
        "accuracy": columns["accuracy"],
        "penalised": columns["penalised"] if penalty else None,
        "penalty": penalty,
        "batch_norm": survey.surface.batch_norm,
        "trajectory": survey.trajectory and survey.trajectory.described(),
        "passes": math.fsum(point.passes for point in points.values()),
        "done": len(points),
        "total": len(known),
        "gaps": sum(point.loss is None for point in points.values()),
    }
    return Answer(KIND, survey.name, found)


def _rows(values: list[float | None], axes: list[Axis]) -> list[Any]:
    """Values as `[n]` or `[n][m]`."""
    if len(axes) == 1:
        return values
    width = len(axes[1].points)
    return [values[start : start + width] for start in range(0, len(values), width)]


def _name(step: int, wanted: Wanted, axes: list[Axis], header: dict[str, Any]) -> str:
    """A name that no other landscape of the run has: readable, and a digest of all that is asked."""
    size = "x".join(str(len(axis.points)) for axis in axes)
    words = [f"step{step}", wanted.kind, *([axes[0].normalised] if axes[0].normalised else []), size]
    return "-".join([*words, hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:8]])
