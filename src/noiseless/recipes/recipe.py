"""What a recipe is: all that changes the results of a run, as one frozen value of several parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from noiseless.recipes import parts
from noiseless.recipes.checks import at_least


@dataclass(frozen=True)
class Recipe:
    """The mathematics of a run: which function is minimised, and how."""

    name: str = "fb-regularized"
    """name in the record and of the run directory"""
    seed: int = 0
    """keys every random draw"""
    data: parts.Data = field(default_factory=parts.Data)
    model: parts.Model = field(default_factory=parts.Model)
    objective: parts.Objective = field(default_factory=parts.Objective)
    transforms: parts.Transforms = field(default_factory=parts.Transforms)
    optimizer: parts.Optimizer = field(default_factory=parts.Optimizer)
    schedule: parts.Schedule = field(default_factory=parts.Schedule)
    evaluation: parts.Evaluation = field(default_factory=parts.Evaluation)
    compat: Literal["none", "published"] = "none"
    """published: the arithmetic of the paper's published code where ours differs, see docs/parity.md"""

    def check(self) -> None:
        """Refuses values that no run can have; sizes that depend on the data are checked where the data are known.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        at_least("seed", self.seed, 0)
        if self.seed >= 2**64:
            raise ValueError(f"--seed must be below 2**64, not {self.seed}")
        for part in (self.data, self.objective, self.transforms, self.optimizer, self.schedule, self.evaluation):
            part.check()  # what a model takes is checked where it is built
        self._check_parts_together()

    def _check_parts_together(self) -> None:
        data, objective, transforms, schedule = self.data, self.objective, self.transforms, self.schedule
        if objective.switch >= schedule.steps:
            raise ValueError(
                f"--switch {objective.switch} is never reached in --steps {schedule.steps}: give a smaller one"
            )
        if objective.parts > 1 and (transforms.additive_noise or transforms.multiplicative_noise):
            raise ValueError(
                f"--additive-noise and --multiplicative-noise are drawn once a step, and --parts {objective.parts} has"
                " several updates: give --parts 1"
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
