"""A race: optimizers side by side, each with the same budgets of passes, by one protocol (docs/price.md).

A contender that is tuned runs each setting of its grid on the training images without a validation part, with seeds of
their own; the best mean accuracy on that part decides, and of equals the lower mean loss. Then it runs with the chosen
setting on all training images, and the test images are asked once, after its last step. All of it is runs as others
are: finished ones are kept and unfinished ones resumed, so the same command goes on after an interruption.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noiseless.run.contenders import Contender, Course
from noiseless.run.ladder import Job
from noiseless.run.recipe import Recipe

TUNING_SEED = 1000
"""the first of the seeds with which settings are chosen; those of the race begin at 0"""


@dataclass(frozen=True)
class Protocol:
    """What is the same for all contenders."""

    budgets: tuple[int, ...]
    """passes"""
    seeds: int
    """of the race, from 0 on"""
    rates: int
    """learning rates on a grid"""
    tuning_seeds: int
    """of each setting that is tried, from `TUNING_SEED` on; each draws a validation part of its own"""
    validation: float
    """share of the training images"""
    tune_at: int | None = None
    """budget with which settings are chosen for all budgets; None: for each by itself"""

    def tuned_at(self, budget: int) -> int:
        """The budget with which the settings of another are chosen."""
        return self.tune_at or budget


@dataclass(frozen=True)
class Trial:
    """A setting that a contender may choose, and what it came to on the validation part."""

    recipe: Recipe
    """of the race with that setting: without validation, with the seed 0"""
    jobs: list[Job]

    @property
    def setting(self) -> str:
        """What it sets."""
        return setting(self.recipe)

    def score(self) -> tuple[float, float]:
        """Mean accuracy, 0 ... 1, and negative mean loss: the larger the better; of runs that ended not finite, 0."""
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
    """A contender with a budget."""

    contender: Contender
    budget: int
    trials: list[Trial]
    """one without jobs, where nothing is tuned"""

    @property
    def tuned(self) -> bool:
        """Whether there is something to choose."""
        return self.contender.size is not None

    def best(self) -> Trial:
        """The trial with the best score; the first of equals."""
        return max(self.trials, key=Trial.score) if self.tuned else self.trials[0]

    def at_edge(self) -> bool:
        """Whether the chosen rate is the smallest or largest on the grid, so that one beyond it might be better."""
        rates = [trial.recipe.lr for trial in self.trials]
        return self.tuned and self.best().recipe.lr in (min(rates), max(rates))


@dataclass(frozen=True)
class Race:
    """All contenders on one course."""

    course: Course
    protocol: Protocol
    contenders: Sequence[Contender]
    directory: Path

    def entries(self) -> list[Entry]:
        """Each contender with each budget at which it is tuned."""
        budgets = dict.fromkeys(self.protocol.tuned_at(budget) for budget in self.protocol.budgets)
        return [self._entry(contender, budget) for contender in self.contenders for budget in budgets]

    def _entry(self, contender: Contender, budget: int) -> Entry:
        recipes = self.course.grid(contender, budget, self.protocol.rates)
        return Entry(contender, budget, [Trial(recipe, self._tuning(contender, recipe)) for recipe in recipes])

    def _tuning(self, contender: Contender, recipe: Recipe) -> list[Job]:
        if contender.size is None:
            return []
        place = self.directory / "tuning" / recipe.name
        name = f"{recipe.name} {setting(recipe)}"
        tried = replace(recipe, name=name, validation=self.protocol.validation)
        return [
            Job(replace(tried, seed=seed), place / f"{setting(recipe).replace(' ', '-')}-seed{seed}")
            for seed in range(TUNING_SEED, TUNING_SEED + self.protocol.tuning_seeds)
        ]

    def planned(self, contender: Contender, budget: int) -> list[Job]:
        """The same jobs before the setting is known, with the middle of the grid: for what they cost.

        Args:
            contender: one of this race's.
            budget: one of the protocol's.

        Returns:
            One for each seed.
        """
        recipes = self.course.grid(contender, budget, self.protocol.rates)
        return self._seeded(recipes[len(recipes) // 2])

    def _seeded(self, recipe: Recipe) -> list[Job]:
        place = self.directory / recipe.name
        return [Job(replace(recipe, seed=seed), place / f"seed{seed}") for seed in range(self.protocol.seeds)]

    def runs(self, contender: Contender, budget: int) -> list[Job]:
        """The jobs of a contender with a budget, by seed, once its setting is known.

        Args:
            contender: one of this race's.
            budget: one of the protocol's.

        Returns:
            One for each seed.
        """
        chosen = self._entry(contender, self.protocol.tuned_at(budget)).best().recipe
        recipe = self.course.recipe(contender, budget)
        return self._seeded(replace(recipe, **{name: getattr(chosen, name) for name in SET}))


SET = ("lr", "weight_decay", "block", "norm_block")
"""fields that a grid sets"""


def setting(recipe: Recipe) -> str:
    """What a grid sets, as words: `lr 0.1 decay 0.0005 block 32`; of a size of batch norm's own, `norm-block 16`."""
    size = f"norm-block {recipe.norm_block}" if recipe.norm_block else f"block {recipe.block}"
    return f"lr {recipe.lr:g} decay {recipe.weight_decay:g} {size}"


def choices(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What was tried and chosen, as plain values.

    Args:
        entries: whose trials have ended.

    Returns:
        For each tuned entry its contender, budget, the chosen setting, whether that is at the grid's edge, and each
        trial's mean validation accuracy and loss (None where a run of it was not finite).
    """
    found = []
    for entry in entries:
        if not entry.tuned:
            continue
        trials = []
        for trial in entry.trials:
            accuracy, loss = trial.score()
            finite = math.isfinite(loss)
            trials.append({
                "setting": trial.setting,
                "validation_accuracy": accuracy if finite else None,
                "validation_loss": -loss if finite else None,
                "runs": len(trial.jobs),
            })  # fmt: skip
        found.append({
            "contender": entry.contender.name, "passes": entry.budget, "chosen": entry.best().setting,
            "at_edge": entry.at_edge(), "trials": trials,
        })  # fmt: skip
    return found
