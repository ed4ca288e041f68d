"""A fork of a run before it is carried out: what is changed, how far both runs go, where their files are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from noiseless.analysis import BatchNorm
from noiseless.files import answers, checkpoint
from noiseless.files.address import StateAddress
from noiseless.files.directory import RunDirectory
from noiseless.files.pointfile import PointFile
from noiseless.objective.base import FORWARD
from noiseless.objective.workers import Workers
from noiseless.recipes.config import Config
from noiseless.recipes.flags import differing
from noiseless.run.build import Experiment, rebuild
from noiseless.study.branches import FOLDER, Flip, Start, before

KIND = "fork"
SETTINGS = ("threads", "chunk", "compile", "device")
"""settings, besides the flags of the recipe, that can be changed"""
FIXED = ("name", "data", "pixels", "validation", "init", "model", "model_options")
"""flags of the recipe that cannot be changed: the state belongs to them"""
MEASURED = 20
"""usual number of equal distances between measurements; steps 1, 2, 4, 8, ... after the start are measured, too"""


@dataclass(frozen=True)
class ForkOptions:
    """What is changed, and what is measured."""

    change: Callable[[Config], Config] = lambda config: config
    """config of the run -> that of the changed run"""
    flip: Flip | None = None
    """a bit that is the other one in the changed run"""
    steps: int | None = None
    """steps of both runs; None: to the end of the recipe"""
    every: int | None = None
    """steps between measurements; None: a twentieth of the steps"""
    points: int = 11
    """points on the line between the ends, with both ends"""
    batch_norm: BatchNorm = "block"
    """the module's mode on the line, see `LinearPath`"""


@dataclass(frozen=True)
class LinePoint:
    """A point of the line between two ends; None for what is not finite, or where there is no classification."""

    loss: float | None
    """mean training loss, without a penalty, on images without augmentation"""
    error: float | None
    """share of training images that are classified wrongly"""
    test_loss: float | None
    """mean cross entropy on the test images"""
    test_error: float | None
    """share of test images that are classified wrongly"""
    passes: float


@dataclass(frozen=True)
class ForkJob:
    """A fork that can be carried out, and continued."""

    directory: RunDirectory
    base: Experiment
    """of the run, with its initial state"""
    config: Config
    """of the changed run"""
    options: ForkOptions
    step: int
    """number of steps done where the runs part"""
    until: int
    """number of steps done where they end"""
    changes: dict[str, list[Any]]
    """flag -> value of the run, value of the changed run"""

    @property
    def every(self) -> int:
        """Steps between measurements."""
        return self.options.every or max(1, (self.until - self.step) // MEASURED)

    @property
    def marks(self) -> list[int]:
        """Steps after which the distance is measured."""
        length = self.until - self.step
        powers = [2**k for k in range(length.bit_length()) if 2**k <= length]
        return sorted({self.step + k for k in (0, *powers, *range(self.every, length + 1, self.every), length)})

    @property
    def place(self) -> Path:
        """Folder of the run that goes on unchanged, which forks with the same start, end and marks share."""
        return self.directory.path / FOLDER / f"{self.step}-to-{self.until}-every-{self.every}"

    @property
    def name(self) -> str:
        """Name of the change, as a part of file names."""
        parts = [f"{flag}-{values[1]}" for flag, values in self.changes.items()]
        if self.options.flip is not None:
            flip = self.options.flip
            parts.append(f"{flip.name}-{'-'.join(map(str, flip.index))}-bit-{flip.bit}")
        text = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts)) or "nothing"
        full = json_digest(self.changes)
        return text if len(text) <= 60 and "/" not in "".join(parts) else f"{text[:48]}-{full}"

    @property
    def replays(self) -> int:
        """Steps that have to be made again to reach the start."""
        return self.step - before(self.directory, self.step)


def json_digest(value: Any) -> str:
    """The first 10 hexadecimal digits of the SHA-256 of a value's text."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:10]


def prepare(address: StateAddress, options: ForkOptions, workers: Workers) -> ForkJob:
    """Builds a fork. It computes no step and writes nothing.

    Args:
        address: the run and the step at which the runs part; no step: the initial state.
        options: what is changed and measured.
        workers: that share the sweeps; every worker must call this.

    Returns:
        The job.

    Raises:
        ValueError: if a flag cannot be changed, or no steps are left.
    """
    directory, step = address.directory, address.step or 0
    base = rebuild(directory, workers, snapshots=False)
    config = options.change(base.config)
    changes = {flag: list(pair) for flag, pair in differing(base.config.recipe, config.recipe).items()}
    for flag in FIXED:
        if flag in changes:
            raise ValueError(f"--change {flag.replace('_', '-')}: a fork goes on from a state, which belongs to it")
    for name, value in asdict(base.config.settings).items():
        other = getattr(config.settings, name)
        if other != value:
            if name not in SETTINGS:
                raise ValueError(f"--change {name.replace('_', '-')} changes no step: change a flag of the recipe")
            changes[name] = [value, other]
    end = min(base.config.recipe.schedule.steps, config.recipe.schedule.steps)
    if step >= end:
        raise ValueError(f"the run has {end} steps, so none is left after step {step}: fork at an earlier one")
    until = end if options.steps is None else min(end, step + options.steps)
    job = ForkJob(directory, base, config, options, step, until, changes)
    before(directory, step)  # refuses a state that cannot be reached
    return job


def points_file(job: ForkJob, what: str, start: Start, kind: type[Any]) -> PointFile[Any]:
    """The file of measurements over the steps, or of the points of the line."""
    path = job.directory.path / answers.FOLDER / f"{KIND}-{answer_name(job)}-{what}.jsonl"
    header = {"start": checkpoint.digest(start.state["model"]), "changes": job.changes, "every": job.every}
    if kind is LinePoint:
        header |= {"points": job.options.points, "batch_norm": job.options.batch_norm}
    return PointFile(path, header, kind, KIND)


def answer_name(job: ForkJob) -> str:
    """Name of the answer: where the runs part and end, and what is changed."""
    every = "" if job.options.every is None else f"-every-{job.every}"
    mode = "-running" if job.options.batch_norm == "running" else ""
    return f"{job.step}-to-{job.until}{every}-{job.name}{mode}"


@dataclass(frozen=True)
class ForkCost:
    """What a fork takes, at most: less where another one has trained the unchanged run."""

    passes: float
    """of the steps that are made again, both runs, and the line"""
    seconds: float | None
    """at the mean speed of the run's recorded steps; None: it has none"""
    bytes: float
    """on disk: the parameters at each measurement, and two checkpoints of each run without the optimizer's state"""


def cost(job: ForkJob) -> ForkCost:
    """What a fork takes.

    Args:
        job: the fork.

    Returns:
        Passes, seconds and bytes.
    """
    step = sum(objective.passes for objective in job.base.regime.objectives(job.step))
    line = job.options.points * (1.0 if job.options.batch_norm == "block" else FORWARD)
    passes = step * (job.replays + 2 * (job.until - job.step)) + line
    rows = job.directory.rows()
    known = [row["seconds"] for row in rows if isinstance(row.get("seconds"), float)]
    seconds = passes / step * sum(known) / len(known) if known else None
    theta = job.base.space.theta
    return ForkCost(passes, seconds, theta.numel() * theta.element_size() * (len(job.marks) + 6))
