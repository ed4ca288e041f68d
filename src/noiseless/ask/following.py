"""Follows a run from one of its steps: the start of the questions about the steps themselves."""

from __future__ import annotations

from dataclasses import replace

from noiseless.analysis import Hessian
from noiseless.ask.state import RunState, checkpoint_steps, load_optimizer, load_state
from noiseless.files.address import StateAddress
from noiseless.objective import GradientPenalty, Objective
from noiseless.objective.workers import Workers
from noiseless.run.replay import Replay


def before(address: StateAddress, workers: Workers | None = None) -> RunState:
    """Loads the newest state that a run has kept at or before a step, from which the run can be followed.

    Args:
        address: of the step; without a step, the run's first one.
        workers: see `load_state`.

    Returns:
        The state.

    Raises:
        ValueError: if the run has no such state, or does not make this step.
    """
    directory = address.directory
    end, first = last_step(address), directory.began()
    step = first if address.step is None else address.step
    if not first <= step < end:
        raise ValueError(f"{directory.path} makes the steps {first} to {end - 1}: there is no step {step} to follow")
    kept = [first, *(kept for kept in checkpoint_steps(directory) if first <= kept <= step)]
    return load_state(replace(address, step=max(kept)), workers)


def last_step(address: StateAddress) -> int:
    """The number of steps that a run makes: where it has ended, or else those of its recipe."""
    ended = address.directory.end()
    return ended.step if ended else address.directory.config().recipe.schedule.steps


def replay(state: RunState) -> Replay:
    """The run, going on from a state.

    Returns:
        The replay; its experiment is that of the state.
    """
    load_optimizer(state)
    return Replay(state.experiment, state.step, state.transforms)


def followed(state: RunState) -> tuple[Objective, Hessian]:
    """What a run's steps lower at a state, with its penalty if that has a Hessian, and its Hessian.

    Args:
        state: of the run.

    Returns:
        The objective over all training examples: with the penalty, except one on the full gradient; and its Hessian.
    """
    penalised = state.penalised
    objective: Objective = state.risk
    if isinstance(penalised, GradientPenalty) and not penalised.full_strength:
        objective = penalised
    return objective, Hessian(objective, "block")
