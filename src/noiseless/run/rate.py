"""The learning rate of an update. Step 7 of a training step."""

from __future__ import annotations

from noiseless.optim import groups
from noiseless.run.build import Training


def set_rate(experiment: Training, step: int, update: int, updates: int) -> float:
    """Sets the learning rate of an update in all parameter groups.

    Args:
        experiment: of the run.
        step: number of the step, from 0.
        update: number of the update in its step, from 0.
        updates: number of updates in the step.

    Returns:
        The rate.
    """
    share = update / updates if experiment.config.recipe.schedule.rate_by == "update" else 0
    rate = experiment.schedule(step + share)
    groups.set_rate(experiment.optimizer, rate)
    return rate
