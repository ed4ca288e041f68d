"""Loads a run at one of its states: the start of every analysis. The run's files are read and never written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from noiseless.files import checkpoint
from noiseless.files.address import StateAddress
from noiseless.files.parameters import fill
from noiseless.files.state import restored_from
from noiseless.files.stored import read_state
from noiseless.objective import EmpiricalRisk, GradientPenalty, Objective
from noiseless.objective.workers import Workers
from noiseless.optim.transforms import State
from noiseless.recipes.config import Config
from noiseless.run.build import Experiment, rebuild
from noiseless.run.regimes import FullBatch
from noiseless.run.team import refuse_disagreement


@dataclass(frozen=True)
class RunState:
    """A run's model, data, objective and optimizer at one of its states."""

    address: StateAddress
    experiment: Experiment
    """model, data, optimizer; the model is in training mode and holds the state"""
    step: int
    """steps done"""
    optimizer_state: dict[str, object] | None
    """the optimizer's state at this step; None where no checkpoint holds it"""
    transforms: State | None = None
    """the transforms' state at this step; None where no checkpoint holds it, and before the first step"""

    @property
    def objective_step(self) -> int:
        """The step whose data and objective an analysis uses: the next one, or the last one of an ended run."""
        return min(self.step, self.experiment.config.recipe.schedule.steps - 1)

    @property
    def risk(self) -> EmpiricalRisk:
        """The loss over all training examples, as `objective_step` sees them, without penalty."""
        return self.experiment.regime.risk_at(self.objective_step)

    @property
    def objective(self) -> Objective:
        """The objective of `objective_step`: of the full batch, all parts in one, or of a stochastic first block."""
        regime = self.experiment.regime
        if isinstance(regime, FullBatch):
            regime = replace(regime, parts=1)
        return next(iter(regime.objectives(self.objective_step)))

    @property
    def penalised(self) -> GradientPenalty | None:
        """The loss over all training examples plus the penalty of `objective_step`; None where it has no penalty.

        For a stochastic step, whose updates are penalised one by one, it is the mean over the updates.
        """
        objective: Objective | None = self.objective
        while objective is not None and not isinstance(objective, GradientPenalty):
            objective = objective.wrapped
        if objective is None:
            return None
        full_risk = self.risk
        if objective.risk.blocks.count < full_risk.blocks.count:  # an update's full gradient is that of its block
            strength = objective.strength + objective.full_strength
            return replace(objective, risk=full_risk, strength=strength, full_strength=0.0)
        return replace(objective, risk=full_risk)


def load_state(
    address: StateAddress,
    workers: Workers | None = None,
    change: Callable[[Config], Config] = lambda config: config,
    trust: str | Iterable[str] | None = None,
) -> RunState:
    """Loads a run at one of its states. Nothing is written into the run.

    Args:
        address: which run, and which of its states.
        workers: that share the sweeps; every worker must call this. None: this process alone.
        change: maps the run's config to the one that is built, to compare the two.
        trust: your own functions that may be used, see `rebuild`.

    Returns:
        The run's objects, with the model in training mode.

    Raises:
        ValueError: if the run has no such state, the state is damaged or of another model, or the workers differ in the
            state or in anything else that the bits of their results depend on.
    """
    stored = read_state(address)
    experiment = rebuild(address.directory, workers, snapshots=False, change=change, trust=trust)
    if stored.model is not None:
        fill(experiment.model, stored.model, stored.file)
    experiment.model.train()
    state = RunState(address, experiment, stored.step, stored.optimizer, stored.transforms)
    if workers is not None and workers.count > 1:
        refuse_disagreement(workers, experiment)
        _refuse_other_states(workers, state)
    return state


def load_optimizer(state: RunState) -> None:
    """Loads the optimizer's state at a run's state into its optimizer, if a checkpoint holds it.

    Raises:
        ValueError: if it is not a state of this optimizer.
    """
    if state.optimizer_state is not None:
        with restored_from(state.address):
            state.experiment.optimizer.load_state_dict(state.optimizer_state)


def _refuse_other_states(workers: Workers, state: RunState) -> None:
    """Raises if the workers have read different states, for instance from different copies of a run."""
    tensors = _tensors("model", state.experiment.model.state_dict()) | _tensors("optimizer", state.optimizer_state)
    digests = workers.exchange(f"step {state.step}, {checkpoint.digest(tensors)}")
    if len(set(digests)) > 1:
        listed = "; ".join(f"worker {rank}: {digest}" for rank, digest in enumerate(digests))
        raise ValueError(
            f"the workers have read different states of {state.address} ({listed}): give all the same files"
        )


def _tensors(name: str, value: Any) -> dict[str, Tensor]:
    """The tensors and numbers of nested dictionaries and lists, as tensors by their path."""
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, dict):
        return {key: tensor for k, part in value.items() for key, tensor in _tensors(f"{name}/{k}", part).items()}
    if isinstance(value, (list, tuple)):
        return _tensors(name, dict(enumerate(value)))
    return {name: torch.tensor(value, dtype=torch.float64)} if isinstance(value, (int, float)) else {}
