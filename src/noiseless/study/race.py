"""A race compares optimizers that have the same budgets of passes, by one protocol (docs/price.md).

1. Tuning: a contender with a grid runs each setting of it on the training images without a validation part, with seeds
   that the race does not use. The setting with the highest mean accuracy on that part is chosen; of equal ones, that
   with the lowest mean loss. Contenders that an earlier race has tuned may use its choices instead.
2. Race: each contender runs with its chosen setting on all training images. The test images are evaluated once, after
   the last step.

All of these are ordinary runs: finished ones are kept and unfinished ones resumed, so the same command continues after
an interruption.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noiseless.recipes.checks import MOST_BUDGET
from noiseless.recipes.flags import flag_value, with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.study import earlier
from noiseless.study.contenders import Contender, Course
from noiseless.study.earlier import AXES, GRID_FIELDS, Chosen
from noiseless.study.reproduce import Job

TUNING_SEED = 1000
"""first seed of the tuning runs; the seeds of the race are below it"""
MOST_RATES = 100
"""largest number of learning rates on a grid: a factor 2 apart, many more would overflow a float"""


@dataclass(frozen=True)
class Protocol:
    """Budgets, seeds and tuning, which are the same for all contenders."""

    budgets: tuple[int, ...]
    """in passes"""
    seeds: int
    """number of seeds of the race, from 0 on"""
    rates: int
    """number of learning rates on a grid"""
    tuning_seeds: int
    """number of tuning runs for each setting, with seeds from `TUNING_SEED` on; each seed draws another validation
    part"""
    validation: float
    """share of the training images that is the validation part"""
    tune_at: int | None = None
    """budget at which settings are chosen for all budgets, in passes; None: they are chosen at each budget"""

    def __post_init__(self) -> None:
        most = {"seeds": TUNING_SEED, "tuning_seeds": TUNING_SEED, "rates": MOST_RATES, "tune_at": MOST_BUDGET}
        for name in ("seeds", "rates", "tuning_seeds", "tune_at"):
            number = getattr(self, name)
            if number is not None and not 1 <= number <= most.get(name, number):
                limit = f" and at most {most[name]}" if name in most else ""
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1{limit}, not {number}")
        if not 0 < self.validation < 1:
            raise ValueError(f"--validation must be a share between 0 and 1, not {self.validation}")

    def tuned_at(self, budget: int) -> int:
        """The budget at which the settings for `budget` are chosen."""
        return self.tune_at or budget


@dataclass(frozen=True)
class Trial:
    """A setting of a contender's grid with its tuning runs."""

    recipe: Recipe
    """recipe of the race with that setting: without validation, with the seed 0"""
    jobs: list[Job]
    """tuning runs; empty if nothing is tuned here"""

    def score(self) -> tuple[float, float]:
        """Mean validation accuracy in [0, 1] and negative mean loss; (0, -inf) if a run diverged or has not ended."""
        rows = [job.directory.rows()[-1] for job in self.jobs if job.finished]
        losses = [row["test_loss"] for row in rows if row["test_loss"] is not None]  # None: not finite
        if len(losses) < len(self.jobs):
            return 0.0, -math.inf
        return (
            statistics.mean(row["test_accuracy"] for row in rows),
            -statistics.mean(losses),
        )


@dataclass(frozen=True)
class Entry:
    """A contender at a budget at which it is tuned."""

    contender: Contender
    budget: int
    trials: list[Trial]
    """a single one without jobs, where nothing is tuned here"""
    prior: Chosen | None = None
    """choice of an earlier race; None: there is none"""

    @property
    def tuned(self) -> bool:
        """Whether the contender has a grid, whether it is tuned here or was tuned in an earlier race."""
        return self.contender.size is not None

    def choose(self) -> Choice:
        """Chooses a setting by the records of the tuning runs, which are read now."""
        return Choice(self, [trial.score() for trial in self.trials] if self.tuned and not self.prior else [])


@dataclass(frozen=True)
class Choice:
    """The setting that was chosen for a contender at a budget."""

    entry: Entry
    scores: list[tuple[float, float]]
    """scores of the trials, in their order; empty if nothing is tuned here"""

    @property
    def recipe(self) -> Recipe:
        """Recipe of the trial with the best score; of equal ones, the first."""
        best = self.scores.index(max(self.scores)) if self.scores else 0
        return self.entry.trials[best].recipe

    @property
    def at_edge(self) -> dict[str, str]:
        """Fields whose chosen value is the smallest or largest of the grid, so that a value beyond it might be better.

        Fields with one value on the grid are not tuned, and are left out.

        Returns:
            Field -> `"smallest"` or `"largest"`.
        """
        if self.entry.prior:
            return dict(self.entry.prior["at_edge"])
        at_edge = {}
        size = self.entry.contender.size
        for name in ("lr", "weight_decay", size) if size else ():
            values = [flag_value(trial.recipe, name) for trial in self.entry.trials]
            ends = {min(values): "smallest", max(values): "largest"}
            if len(ends) > 1 and flag_value(self.recipe, name) in ends:
                at_edge[name] = ends[flag_value(self.recipe, name)]
        return at_edge

    def as_json(self) -> dict[str, Any]:
        """An element of `choices.json`: contender, budget, setting, and the means of each trial (None if it diverged).

        Returns:
            An element as `earlier.read` reads it; if the choice comes from there, the same element.
        """
        if self.entry.prior:
            return dict(self.entry.prior)
        trials = [
            {
                "setting": setting(trial.recipe),
                "validation_accuracy": accuracy if math.isfinite(loss) else None,
                "validation_loss": -loss if math.isfinite(loss) else None,
                "runs": len(trial.jobs),
            }
            for trial, (accuracy, loss) in zip(self.entry.trials, self.scores, strict=True)
        ]
        return {
            "contender": self.entry.contender.name, "passes": self.entry.budget, "chosen": setting(self.recipe),
            "setting": {name: flag_value(self.recipe, name) for name in GRID_FIELDS}, "at_edge": self.at_edge,
            "trials": trials,
        }  # fmt: skip


@dataclass(frozen=True)
class Heat:
    """The runs of a contender with a budget, with its chosen setting."""

    choice: Choice
    """made at this budget, or at the budget at which all are tuned"""
    budget: int
    """in passes"""
    jobs: list[Job]
    """one for each seed"""


@dataclass(frozen=True)
class Race:
    """A race of contenders on one course, with all its runs in one directory."""

    course: Course
    protocol: Protocol
    contenders: Sequence[Contender]
    directory: Path
    earlier: Mapping[tuple[str, int], Chosen] | None = None
    """choices of an earlier race, from `earlier.read`; None: all settings are tuned"""

    def entries(self) -> list[Entry]:
        """One entry for each contender and each budget at which settings are chosen."""
        budgets = dict.fromkeys(self.protocol.tuned_at(budget) for budget in self.protocol.budgets)
        return [self._entry(contender, budget) for contender in self.contenders for budget in budgets]

    def _entry(self, contender: Contender, budget: int) -> Entry:
        """A contender with the trials of its grid, or with the choice of the earlier race."""
        prior = earlier.find(self.earlier or {}, contender.name, budget)
        if prior is not None and contender.size is not None:
            return Entry(contender, budget, [Trial(self._with_setting(contender, budget, prior["setting"]), [])], prior)
        recipes = self.course.grid(contender, budget, self.protocol.rates)
        return Entry(contender, budget, [Trial(recipe, self._tuning(contender, recipe)) for recipe in recipes])

    def _tuning(self, contender: Contender, recipe: Recipe) -> list[Job]:
        """The tuning runs of one setting; none for a contender without a grid."""
        if contender.size is None:
            return []
        place = self.directory / "tuning" / recipe.name
        name = f"{recipe.name} {setting(recipe)}"
        tuning_recipe = with_flags(recipe, name=name, validation=self.protocol.validation)
        return [
            Job(replace(tuning_recipe, seed=seed), place / f"{setting(recipe).replace(' ', '-')}-seed{seed}")
            for seed in range(TUNING_SEED, TUNING_SEED + self.protocol.tuning_seeds)
        ]

    def heats(self, choices: Sequence[Choice]) -> list[Heat]:
        """The runs that follow the tuning.

        Args:
            choices: of all entries.

        Returns:
            One heat for each contender and budget.
        """
        by_entry = {(choice.entry.contender.name, choice.entry.budget): choice for choice in choices}
        heats = []
        for contender in self.contenders:
            for budget in self.protocol.budgets:
                choice = by_entry[contender.name, self.protocol.tuned_at(budget)]
                heats.append(Heat(choice, budget, self.runs(contender, budget, choice.recipe)))
        return heats

    def planned(self, contender: Contender, budget: int) -> list[Job]:
        """The runs of a contender with the middle setting of its grid, to estimate their cost before the tuning."""
        trials = self._entry(contender, self.protocol.tuned_at(budget)).trials
        return self.runs(contender, budget, trials[len(trials) // 2].recipe)

    def runs(self, contender: Contender, budget: int, like: Recipe) -> list[Job]:
        """The runs of a contender with a budget.

        Args:
            contender: of this race.
            budget: of the protocol.
            like: recipe with the setting, at any budget.

        Returns:
            A job for each seed.
        """
        recipe = self._with_setting(contender, budget, {name: flag_value(like, name) for name in GRID_FIELDS})
        place = self.directory / recipe.name
        return [Job(replace(recipe, seed=seed), place / f"seed{seed}") for seed in range(self.protocol.seeds)]

    def _with_setting(self, contender: Contender, budget: int, values: Mapping[str, Any]) -> Recipe:
        return with_flags(self.course.recipe(contender, budget), **values)


def setting(recipe: Recipe) -> str:
    """The fields of a grid in words: `lr 0.1 decay 0.0005 block 32`; `norm-block 16` if the recipe has a norm block."""
    objective, optimizer = recipe.objective, recipe.optimizer
    size = f"norm-block {objective.norm_block}" if objective.norm_block else f"block {objective.block}"
    return f"lr {optimizer.lr:g} decay {optimizer.weight_decay:g} {size}"


def edges(at_edge: Mapping[str, str]) -> str:
    """`Choice.at_edge` in words: `smallest rate, largest decay`; empty if the choice is at no edge of its grid."""
    return ", ".join(f"{end} {AXES[name]}" for name, end in at_edge.items())
