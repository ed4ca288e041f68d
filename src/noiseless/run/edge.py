"""The edge of stability of a run's updates, or why there is none."""

from __future__ import annotations

from typing import Literal

from noiseless.analysis import Operator, StepStability, step_stability
from noiseless.optim import Linear, Searched
from noiseless.run.build import Training


def stability_of(
    experiment: Training, operator: Operator, linear: Linear | None, of: Literal["loss", "objective"]
) -> StepStability:
    """The matrix and the edge of the updates of a run, as `step_stability` has them, or why there is none.

    Args:
        experiment: of the run, its optimizer with the rate of the update, and its state after it.
        operator: the Hessian of `of` where the update began.
        linear: of the update's transforms; None: it is not known.
        of: the function whose Hessian it is.

    Returns:
        Both.
    """
    recipe, transform = experiment.config.recipe, experiment.transform
    objective = recipe.objective

    def unknown(reason: str) -> StepStability:
        return StepStability(operator, None, None, reason)

    if objective.sam:
        return unknown("sharpness-aware steps go along the gradient of another point")
    if of == "loss" and objective.penalised:
        return unknown("the steps follow the Hessian of the objective with its penalty")
    if recipe.transforms.block_clip is not None:
        return unknown("each block's gradient is clipped by itself, so the steps follow no Hessian of the mean")
    if isinstance(experiment.optimizer, Searched):
        return unknown("a line search chooses the size of each step")
    if transform is not None and linear is None:
        return unknown(f"the edge is not known with {transform.name}")
    return step_stability(operator, experiment.optimizer, experiment.space, linear, objective.parts)
