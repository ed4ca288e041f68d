"""What a run will cost in seconds, from a short measurement of its own objective."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from noiseless.objective import EmpiricalRisk, Objective
from noiseless.run.build import Experiment
from noiseless.run.evaluate import BATCH, score
from noiseless.run.recipe import Recipe

SECONDS = 0.5
"""of measuring, at least, unless one part takes longer"""


@dataclass(frozen=True)
class Measured:
    """Times of this machine, as this process stands."""

    step: float
    """seconds of a step"""
    evaluation: float
    """seconds of an evaluation on the test images"""


def seconds(experiment: Experiment, measured: Measured | None = None) -> float:
    """How long a run will take on this machine.

    Args:
        experiment: built for this machine.
        measured: of a run whose steps do the same work; None: it is measured now.

    Returns:
        Seconds from the first step to the last.
    """
    recipe, settings = experiment.config.recipe, experiment.config.settings
    measured = measured or measure(experiment)
    evaluations = -(-recipe.steps // (settings.evaluate_every or recipe.steps))
    return recipe.steps * measured.step + evaluations * measured.evaluation


def alike(recipe: Recipe) -> Recipe:
    """The recipe without what does not matter to a step's time: rows with the same value are measured once."""
    schedule = {"name": "", "seed": 0, "steps": 1, "lr": 1.0, "warmup": 0, "horizon": None, "schedule": "constant"}
    return replace(recipe, **schedule, clip=None, penalty=float(recipe.penalty > 0))  # type: ignore[arg-type]


def measure(experiment: Experiment) -> Measured:
    """Times a step and an evaluation, in about a second.

    The objective of step 0 is asked on its first chunk of blocks, again and again, and so is the evaluation on test
    images; both are scaled to the whole. Nothing of the experiment is changed.

    Args:
        experiment: built for this machine.

    Returns:
        Seconds of each.
    """
    recipe, settings = experiment.config.recipe, experiment.config.settings
    objective = next(iter(experiment.regime.objectives(0)))
    examples = len(experiment.train) * max(1, recipe.copies if recipe.regime == "full-batch" else 1) * recipe.max_up
    count = min(recipe.block * (settings.chunk or 1), examples)
    if recipe.regime == "stochastic":
        count = min(recipe.block, examples)
    part = _first(objective, count)
    experiment.model.train()
    step = _median(part.evaluate) * examples / count
    few = replace(experiment.test, images=experiment.test.images[:BATCH], labels=experiment.test.labels[:BATCH])
    evaluation = _median(lambda: score(experiment.model, few)) * len(experiment.test) / len(few)
    return Measured(step, evaluation)


def _first(objective: Objective, count: int) -> Objective:
    """The same objective over its first examples, whatever is wrapped around the risk."""
    if isinstance(objective, EmpiricalRisk):
        order = torch.arange(len(objective.examples)) if objective.order is None else objective.order
        return replace(objective, order=order[:count], block=min(objective.blocks.size, count))
    for name in ("risk", "objective"):
        inner = getattr(objective, name, None)
        if isinstance(inner, Objective):
            return replace(objective, **{name: _first(inner, count)})  # type: ignore[type-var]
    raise TypeError(f"{type(objective).__name__} wraps no risk")


def _median(ask: Callable[[], object]) -> float:
    ask()  # the first one also allocates
    found: list[float] = []
    while sum(found) < SECONDS and len(found) < 20:
        began = time.perf_counter()
        ask()
        found.append(time.perf_counter() - began)
    return sorted(found)[len(found) // 2]
