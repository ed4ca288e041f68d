"""A run's objects at one of its states: what every question to a run starts from. The run's files are only read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noiseless.files import checkpoint
from noiseless.files.directory import RunDirectory
from noiseless.files.parameters import fill
from noiseless.objective import EmpiricalRisk, GradientPenalty, Objective
from noiseless.objective.workers import Workers
from noiseless.recipes.config import Config
from noiseless.run.build import Experiment, rebuild
from noiseless.run.regimes import FullBatch
from noiseless.run.team import refuse_disagreement


@dataclass(frozen=True)
class StateAddress:
    """A run and one of its states, by the number of steps done."""

    directory: RunDirectory
    step: int | None
    """steps done; None: the end, or the newest checkpoint of a run that has not ended"""

    @staticmethod
    def read(text: str) -> StateAddress:
        """The address that `RUN`, `RUN@STEP` or the path of a checkpoint's file stands for.

        Returns:
            The address.

        Raises:
            ValueError: if there is no such run, or the step is no number.
        """
        path = Path(text)
        if path.parent.name == "checkpoints" and path.name.startswith("step-"):
            digits = path.name.removeprefix("step-").partition(".")[0]
            if digits.isdecimal():
                return StateAddress(RunDirectory.open(path.parent.parent), int(digits))
        run, at, step = text.rpartition("@")
        if not at or path.exists():
            return StateAddress(RunDirectory.open(path), None)
        if not step.isdecimal():
            raise ValueError(f"{text}: the step must be a whole number of steps done, as in {run}@100, not {step!r}")
        return StateAddress(RunDirectory.open(Path(run)), int(step))

    def __str__(self) -> str:
        return str(self.directory.path) + ("" if self.step is None else f"@{self.step}")


@dataclass(frozen=True)
class RunState:
    """A run's objects at one of its states."""

    address: StateAddress
    experiment: Experiment
    """model, data, optimizer; the model is in training mode and holds the state"""
    step: int
    """steps done"""
    optimizer_state: dict[str, object] | None
    """the optimizer's state there; None where no checkpoint holds it"""

    @property
    def objective_step(self) -> int:
        """The step whose data and objective a question uses: the next one, or the run's last."""
        return min(self.step, self.experiment.config.recipe.schedule.steps - 1)

    @property
    def risk(self) -> EmpiricalRisk:
        """The loss over all training examples, as the step sees them, without penalty."""
        return self.experiment.regime.risk_at(self.objective_step)

    @property
    def objective(self) -> Objective:
        """What the step minimises, all parts of a full batch in one; of a stochastic step, its first block's."""
        regime = self.experiment.regime
        if isinstance(regime, FullBatch):
            regime = replace(regime, parts=1)
        return next(iter(regime.objectives(self.objective_step)))

    @property
    def penalised(self) -> GradientPenalty | None:
        """The risk over all training examples with the penalty of the step; None where it has none.

        Of stochastic updates, which are penalised one by one, it is the mean.
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


def load_state(
    address: StateAddress, workers: Workers | None = None, change: Callable[[Config], Config] = lambda config: config
) -> RunState:
    """A run's objects at a state; nothing is written into the run.

    Args:
        address: which run, and which of its states.
        workers: who share the sweeps, each of whom calls this; None: this process alone.
        change: makes the config that is built from the run's: for a comparison of the two.

    Returns:
        The objects.

    Raises:
        ValueError: if the run has no such state, the state is damaged or another model's, or the workers disagree in
            it or in anything else that their bits depend on.
    """
    stored = read_state(address)
    experiment = rebuild(address.directory, workers, snapshots=False, change=change)
    if stored.model is not None:
        fill(experiment.model, stored.model, stored.file)
    experiment.model.train()
    state = RunState(address, experiment, stored.step, stored.optimizer)
    if workers is not None and workers.count > 1:
        refuse_disagreement(workers, experiment)
        _refuse_other_states(workers, state)
    return state


def _refuse_other_states(workers: Workers, state: RunState) -> None:
    """Raises where the workers have read different states, as from different copies of a run."""
    tensors = _tensors("model", state.experiment.model.state_dict()) | _tensors("optimizer", state.optimizer_state)
    digests = workers.exchange(f"step {state.step}, {checkpoint.digest(tensors)}")
    if len(set(digests)) > 1:
        listed = "; ".join(f"worker {rank}: {digest}" for rank, digest in enumerate(digests))
        raise ValueError(
            f"the workers have read different states of {state.address} ({listed}): give all the same files"
        )


def _tensors(name: str, value: Any) -> dict[str, Tensor]:
    """The tensors of nested dictionaries and lists by their path, numbers among them as tensors."""
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, dict):
        return {key: tensor for k, part in value.items() for key, tensor in _tensors(f"{name}/{k}", part).items()}
    if isinstance(value, (list, tuple)):
        return _tensors(name, dict(enumerate(value)))
    return {name: torch.tensor(value, dtype=torch.float64)} if isinstance(value, (int, float)) else {}


@dataclass(frozen=True)
class StateFile:
    """The content of the files that hold one state of a run."""

    step: int
    """steps done"""
    model: dict[str, Tensor] | None
    """parameters and buffers; None: those with which the run began, which follow from its config"""
    optimizer: dict[str, object] | None
    """the optimizer's state; None where no checkpoint holds it"""
    file: Path
    """the file of the model's part"""


def read_state(address: StateAddress) -> StateFile:
    """Reads a state from a run's files, without building a model.

    Args:
        address: which run, and which of its states.

    Returns:
        The state.

    Raises:
        ValueError: if the run has no such state, or the state is damaged.
    """
    directory, step, rows = address.directory, address.step, address.directory.rows()
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
        return StateFile(step, state["model"], state["optimizer"], file)
    if step == ended:
        return StateFile(step, directory.state(), None, directory.model)
    if step != 0 or directory.config().recipe.model.init is not None:
        raise ValueError(f"{directory.path} has no state of step {step}: {_states_there(directory, ended)}")
    return StateFile(0, None, None, file)


def steps_kept(directory: RunDirectory) -> list[int]:
    """The steps of which a run holds a checkpoint, rising."""
    return sorted(checkpoint.number(path) for path in directory.checkpoints.glob("step-*.json"))


def _newest(directory: RunDirectory) -> int:
    newest = checkpoint.newest(directory.checkpoints)
    if newest is None:
        raise ValueError(f"{directory.path} has no checkpoint yet, so it has no state to analyse")
    return newest.step


def _states_there(directory: RunDirectory, ended: int | None) -> str:
    steps = sorted({*steps_kept(directory), *([ended] if ended is not None else [])})
    shown = ", ".join(map(str, steps[-8:]))
    there = f"it has those of {'..., ' if len(steps) > 8 else ''}{shown}" if steps else "it has none"
    return f"{there}; noiseless train --keep-every N keeps one each N steps"
