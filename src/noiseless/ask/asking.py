"""A run at one of its states, ready to be asked: for analyses, which need an objective and leave the run as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory
from noiseless.files.parameters import fill
from noiseless.objective import EmpiricalRisk, GradientPenalty, Objective
from noiseless.objective.workers import Workers
from noiseless.recipes.config import Config
from noiseless.run.build import Experiment, rebuild
from noiseless.run.regimes import FullBatch


@dataclass(frozen=True)
class Place:
    """A run, and the state of it that is meant."""

    directory: RunDirectory
    step: int | None
    """steps done; None: the end, or the newest checkpoint of a run that has not ended"""

    @staticmethod
    def read(text: str) -> Place:
        """The place that `RUN`, `RUN@STEP` or the path of a checkpoint's file names.

        Returns:
            It.

        Raises:
            ValueError: if there is no such run, or the step is no number.
        """
        path = Path(text)
        if path.parent.name == "checkpoints" and path.name.startswith("step-"):
            digits = path.name.removeprefix("step-").partition(".")[0]
            if digits.isdecimal():
                return Place(RunDirectory.open(path.parent.parent), int(digits))
        run, at, step = text.rpartition("@")
        if not at or path.exists():
            return Place(RunDirectory.open(path), None)
        if not step.isdecimal():
            raise ValueError(f"{text}: the step must be a whole number of steps done, as in {run}@100, not {step!r}")
        return Place(RunDirectory.open(Path(run)), int(step))

    def __str__(self) -> str:
        return str(self.directory.path) + ("" if self.step is None else f"@{self.step}")


@dataclass(frozen=True)
class Asked:
    """A run's objects at one of its states."""

    place: Place
    experiment: Experiment
    """its model, in training mode, holds the state"""
    step: int
    """steps done"""
    optimizer: dict[str, object] | None
    """the optimizer's state there; None where no checkpoint holds it"""

    @property
    def seen(self) -> int:
        """The step whose data and objective are asked: the one that comes next, or the run's last."""
        return min(self.step, self.experiment.config.recipe.schedule.steps - 1)

    @property
    def risk(self) -> EmpiricalRisk:
        """The loss over all training examples, as the step sees them, without penalty."""
        return self.experiment.regime.risk_at(self.seen)

    @property
    def objective(self) -> Objective:
        """What the step minimises, all parts of a full batch in one; of a stochastic step, its first block's."""
        regime = self.experiment.regime
        if isinstance(regime, FullBatch):
            regime = replace(regime, parts=1)
        return next(iter(regime.objectives(self.seen)))

    @property
    def penalised(self) -> GradientPenalty | None:
        """The risk over all training examples with the penalty of the step; None where it has none.

        Of stochastic updates, which are penalised each for itself, it is the mean.
        """
        objective: Objective | None = self.objective
        while objective is not None and not isinstance(objective, GradientPenalty):
            objective = objective.wrapped
        if objective is None:
            return None
        full_risk = self.risk
        if objective.risk.blocks.count < full_risk.blocks.count:  # the full gradient of an update is that of its block
            strength = objective.strength + objective.full_strength
            return replace(objective, risk=full_risk, strength=strength, full_strength=0.0)
        return replace(objective, risk=full_risk)


def ask(
    place: Place, workers: Workers | None = None, change: Callable[[Config], Config] = lambda config: config
) -> Asked:
    """The objects of a run at a state; nothing is written into the run.

    Args:
        place: which run, and which of its states.
        workers: who share the sweeps; None: this process alone.
        change: makes the config that is built from the run's: for a comparison of the two.

    Returns:
        Them.

    Raises:
        ValueError: if the run has no such state, or the state is damaged or another model's.
    """
    found = find(place)
    experiment = rebuild(place.directory, workers, snapshots=False, change=change)
    if found.model is not None:
        fill(experiment.model, found.model, found.file)
    experiment.model.train()
    return Asked(place, experiment, found.step, found.optimizer)


@dataclass(frozen=True)
class Found:
    """A state of a run, as its files hold it."""

    step: int
    """steps done"""
    model: dict[str, Tensor] | None
    """parameters and buffers; None: those with which the run began, which follow from its config"""
    optimizer: dict[str, object] | None
    """its state; None where no checkpoint holds it"""
    file: Path
    """that holds it"""


def find(place: Place) -> Found:
    """The state of a run that a place names, read but put into no model.

    Args:
        place: which run, and which of its states.

    Returns:
        It.

    Raises:
        ValueError: if the run has no such state, or the state is damaged.
    """
    directory, step, rows = place.directory, place.step, place.directory.rows()
    ended = rows[-1]["step"] + 1 if directory.model.exists() and rows else None
    if step is None:
        step = ended if ended is not None else _newest(directory)
    file = directory.checkpoints / f"step-{step:08d}.safetensors"
    try:
        state = checkpoint.at(directory.checkpoints, step)
    except ValueError:
        if step != ended:
            raise
        state = None  # the final parameters have a file of their own
    if state is not None:
        return Found(step, state["model"], state["optimizer"], file)
    if step == ended:
        return Found(step, directory.state(), None, directory.model)
    if step != 0 or directory.config().recipe.model.init is not None:
        raise ValueError(f"{directory.path} has no state of step {step}: {_those(directory, ended)}")
    return Found(0, None, None, file)


def steps_kept(directory: RunDirectory) -> list[int]:
    """The steps of which a run holds a checkpoint, rising."""
    return sorted(checkpoint.number(path) for path in directory.checkpoints.glob("step-*.json"))


def _newest(directory: RunDirectory) -> int:
    found = checkpoint.newest(directory.checkpoints)
    if found is None:
        raise ValueError(f"{directory.path} has no checkpoint yet: there is no state to be asked")
    return found.step


def _those(directory: RunDirectory, ended: int | None) -> str:
    steps = sorted({*steps_kept(directory), *([ended] if ended is not None else [])})
    shown = ", ".join(map(str, steps[-8:]))
    there = f"it has those of {'..., ' if len(steps) > 8 else ''}{shown}" if steps else "it has none"
    return f"{there}; noiseless train --keep-every N keeps one each N steps"
