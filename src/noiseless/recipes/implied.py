"""What flags imply for others: steps scale warm-up and horizon, and an optimizer brings its usual learning rate.

A flag that is given is never changed, and a recipe without `--steps` and `--optimizer` stays as it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from noiseless.recipes.checks import MOST
from noiseless.recipes.recipe import Recipe

USUAL_RATES: Mapping[str, float] = {
    "ASGD": 0.01,
    "Adadelta": 1.0,
    "Adafactor": 0.01,
    "Adagrad": 0.01,
    "Adam": 1e-3,
    "AdamW": 1e-3,
    "Adamax": 2e-3,
    "DampedLBFGS": 1.0,
    "FISTA": 0.1,
    "LBFGS": 1.0,
    "Muon": 0.02,
    "NAdam": 2e-3,
    "RAdam": 1e-3,
    "RMSprop": 0.01,
    "Rprop": 0.01,
    "SGD": 0.1,
    "ScalarRMSprop": 0.01,
    "SparseAdam": 1e-3,
}
"""optimizer, in its spelling -> learning rate where none is given: torch's default, but 0.1 as in the ladder's SGD and
0.02 as Muon's author has it"""


def implied(base: Recipe, recipe: Recipe, given: Collection[str]) -> dict[str, Any]:
    """The flags that follow from others.

    Args:
        base: the recipe without any flag.
        recipe: the recipe with the given flags.
        given: their names, with underscores.

    Returns:
        Flag -> value.
    """
    before, steps = base.schedule, recipe.schedule.steps
    changes: dict[str, Any] = {}
    if steps != before.steps:
        if "warmup" not in given and before.warmup:
            changes["warmup"] = max(0, _scaled(before.warmup, steps, before.steps))
        if "horizon" not in given and before.horizon is not None:
            changes["horizon"] = max(1, _scaled(before.horizon, steps, before.steps))
    optimizer = recipe.optimizer.name
    if "lr" not in given and optimizer != base.optimizer.name and optimizer in USUAL_RATES:
        changes["lr"] = USUAL_RATES[optimizer]
    return changes


def _scaled(duration: int, steps: int, before: int) -> int:
    """A number of steps, scaled with the length of the run."""
    return min(MOST, round(duration * steps / before))
