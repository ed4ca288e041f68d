"""The recipe: everything that changes the results of a run, as one frozen value of several parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from noiseless.recipes import parts
from noiseless.recipes.checks import at_least


@dataclass(frozen=True)
class Recipe:
    """The mathematics of a run: which function is minimised, and how."""

    name: str = "fb-regularized"
    """name of the recipe, in the record and in the name of the run's directory"""
    seed: int = 0
    """seed of all random draws"""
    data: parts.Data = field(default_factory=parts.Data)
    model: parts.Model = field(default_factory=parts.Model)
    objective: parts.Objective = field(default_factory=parts.Objective)
    transforms: parts.Transforms = field(default_factory=parts.Transforms)
    optimizer: parts.Optimizer = field(default_factory=parts.Optimizer)
    schedule: parts.Schedule = field(default_factory=parts.Schedule)
    evaluation: parts.Evaluation = field(default_factory=parts.Evaluation)
    compat: Literal["none", "published"] = "none"
    """published: compute as the paper's published code does where noiseless differs, see docs/parity.md"""

    def check(self) -> None:
        """Refuses values that no run can have; sizes that depend on the data are checked after the data are loaded.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        at_least("seed", self.seed, 0, 2**64)
        if self.seed >= 2**64:
            raise ValueError(f"--seed must be below 2**64, not {self.seed}")
        for part in (self.data, self.objective, self.transforms, self.optimizer, self.schedule, self.evaluation):
            part.check()  # the model's values are checked when it is built
        self._check_parts_together()

    def _check_parts_together(self) -> None:
        data, objective, transforms, schedule = self.data, self.objective, self.transforms, self.schedule
        if objective.switch >= schedule.steps:
            raise ValueError(
                f"--switch {objective.switch} is never reached in --steps {schedule.steps}: give a smaller one"
            )
        if objective.parts > 1 and (transforms.additive_noise or transforms.multiplicative_noise):
            noise = "additive" if transforms.additive_noise else "multiplicative"
            raise ValueError(
                f"--{noise}-noise is drawn once a step, and --parts {objective.parts} has several updates: give"
                " --parts 1"
            )
        if schedule.rate_by == "update" and transforms.layer_rate == "larc":
            raise ValueError("--layer-rate larc reads the learning rate of the step: use --rate-by step with it")
        if objective.max_up > 1 and data.copies:
            raise ValueError("--max-up draws anew at each step, and --copies is a fixed set of draws: give one of them")
        if objective.max_up > 1 and not data.random:
            raise ValueError(
                "--max-up compares random draws of an image; give it --augment crop-flip with --padding or --flip, or a"
                " --policy"
            )
