"""A race: optimizers side by side, each with the same budgets of passes, by one protocol (docs/price.md).

A contender that is tuned runs each setting of its grid on the training images without a validation part, with seeds
that the race has not; the best mean accuracy on that part decides, and of equals the lower mean loss. Then it runs with
the chosen setting on all training images, and the test images are evaluated once, after its last step. All are runs as
others are: finished ones are kept and unfinished ones resumed, so the same command goes on after an interruption.
Or settings are those that an earlier race has chosen, and only contenders that it had not are tuned.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noiseless.recipes.flags import flag_value, with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.study import earlier
from noiseless.study.contenders import Contender, Course
from noiseless.study.earlier import AXES, SET, Chosen
from noiseless.study.reproduce import Job

TUNING_SEED = 1000
"""the first of the seeds with which settings are chosen; those of the race are below it"""
MOST_RATES = 100
"""learning rates on a grid: a factor 2 apart, more would leave what a float holds"""


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

    def __post_init__(self) -> None:
        most = {"seeds": TUNING_SEED, "rates": MOST_RATES}
        for name in ("seeds", "rates", "tuning_seeds", "tune_at"):
            number = getattr(self, name)
            if number is not None and not 1 <= number <= most.get(name, number):
                limit = f" and at most {most[name]}" if name in most else ""
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1{limit}, not {number}")
        if not 0 < self.validation < 1:
            raise ValueError(f"--validation must be a share between 0 and 1, not {self.validation}")

    def tuned_at(self, budget: int) -> int:
        """The budget with which the settings of another are chosen."""
        return self.tune_at or budget


@dataclass(frozen=True)
class Trial:
    """A setting that a contender may choose, and what it came to on the validation part."""

    recipe: Recipe
    """of the race with that setting: without validation, with the seed 0"""
    jobs: list[Job]

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
    taken: Chosen | None = None
    """from an earlier race; None: chosen in this one"""

    @property
    def tuned(self) -> bool:
        """Whether there is something to choose, here or in an earlier race."""
        return self.contender.size is not None

    def choose(self) -> Choice:
        """The choice, from the records of the tuning runs, which are read for it."""
        return Choice(self, [trial.score() for trial in self.trials] if self.tuned and not self.taken else [])


@dataclass(frozen=True)
class Choice:
    """What a contender takes with a budget."""

    entry: Entry
    scores: list[tuple[float, float]]
    """of its trials, in their order; none where nothing is tuned here"""

    @property
    def recipe(self) -> Recipe:
        """Of the trial with the best score, the first of equals."""
        best = self.scores.index(max(self.scores)) if self.scores else 0
        return self.entry.trials[best].recipe

    @property
    def at_edge(self) -> dict[str, str]:
        """Fields with the smallest or largest of the grid's values, so that one beyond it might be better.

        A field of which the grid has one value is not tuned, and not among them.

        Returns:
            By field, `"smallest"` or `"largest"`.
        """
        if self.entry.taken:
            return dict(self.entry.taken["at_edge"])
        at_edge = {}
        size = self.entry.contender.size
        for name in ("lr", "weight_decay", size) if size else ():
            values = [flag_value(trial.recipe, name) for trial in self.entry.trials]
            ends = {min(values): "smallest", max(values): "largest"}
            if len(ends) > 1 and flag_value(self.recipe, name) in ends:
                at_edge[name] = ends[flag_value(self.recipe, name)]
        return at_edge

    def as_json(self) -> dict[str, Any]:
        """Plain values: contender, budget, setting, and each trial's means (None where a run was not finite).

        Returns:
            What `earlier.read` reads; of a setting that was taken from there, the same again.
        """
        if self.entry.taken:
            return dict(self.entry.taken)
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
            "setting": {name: flag_value(self.recipe, name) for name in SET}, "at_edge": self.at_edge, "trials": trials,
        }  # fmt: skip


@dataclass(frozen=True)
class Heat:
    """A contender with a budget, and what it runs with what it has chosen."""

    choice: Choice
    """at this budget, or the one at which all are tuned"""
    budget: int
    jobs: list[Job]
    """by seed"""


@dataclass(frozen=True)
class Race:
    """All contenders on one course."""

    course: Course
    protocol: Protocol
    contenders: Sequence[Contender]
    directory: Path
    earlier: Mapping[tuple[str, int], Chosen] | None = None
    """what an earlier race has chosen, as `earlier.read` gives it; None: settings are tuned"""

    def entries(self) -> list[Entry]:
        """Each contender with each budget at which it is tuned."""
        budgets = dict.fromkeys(self.protocol.tuned_at(budget) for budget in self.protocol.budgets)
        return [self._entry(contender, budget) for contender in self.contenders for budget in budgets]

    def _entry(self, contender: Contender, budget: int) -> Entry:
        taken = earlier.of(self.earlier or {}, contender.name, budget)
        if taken is not None and contender.size is not None:
            return Entry(contender, budget, [Trial(self._set(contender, budget, taken["setting"]), [])], taken)
        recipes = self.course.grid(contender, budget, self.protocol.rates)
        return Entry(contender, budget, [Trial(recipe, self._tuning(contender, recipe)) for recipe in recipes])

    def _tuning(self, contender: Contender, recipe: Recipe) -> list[Job]:
        if contender.size is None:
            return []
        place = self.directory / "tuning" / recipe.name
        name = f"{recipe.name} {setting(recipe)}"
        tried = with_flags(recipe, name=name, validation=self.protocol.validation)
        return [
            Job(replace(tried, seed=seed), place / f"{setting(recipe).replace(' ', '-')}-seed{seed}")
            for seed in range(TUNING_SEED, TUNING_SEED + self.protocol.tuning_seeds)
        ]

    def heats(self, choices: Sequence[Choice]) -> list[Heat]:
        """The race itself.

        Args:
            choices: of all entries.

        Returns:
            Each contender with each budget.
        """
        by_entry = {(choice.entry.contender.name, choice.entry.budget): choice for choice in choices}
        found = []
        for contender in self.contenders:
            for budget in self.protocol.budgets:
                choice = by_entry[contender.name, self.protocol.tuned_at(budget)]
                found.append(Heat(choice, budget, self.runs(contender, budget, choice.recipe)))
        return found

    def planned(self, contender: Contender, budget: int) -> list[Job]:
        """The runs of a contender before its setting is known, with the middle of its grid: for what they cost."""
        trials = self._entry(contender, self.protocol.tuned_at(budget)).trials
        return self.runs(contender, budget, trials[len(trials) // 2].recipe)

    def runs(self, contender: Contender, budget: int, like: Recipe) -> list[Job]:
        """The runs of a contender with a budget.

        Args:
            contender: one of this race's.
            budget: one of the protocol's.
            like: has the setting, at whatever budget.

        Returns:
            A job for each seed.
        """
        recipe = self._set(contender, budget, {name: flag_value(like, name) for name in SET})
        place = self.directory / recipe.name
        return [Job(replace(recipe, seed=seed), place / f"seed{seed}") for seed in range(self.protocol.seeds)]

    def _set(self, contender: Contender, budget: int, values: Mapping[str, Any]) -> Recipe:
        return with_flags(self.course.recipe(contender, budget), **values)


def setting(recipe: Recipe) -> str:
    """What a grid sets, as words: `lr 0.1 decay 0.0005 block 32`; of a size of batch norm's own, `norm-block 16`."""
    objective, optimizer = recipe.objective, recipe.optimizer
    size = f"norm-block {objective.norm_block}" if objective.norm_block else f"block {objective.block}"
    return f"lr {optimizer.lr:g} decay {optimizer.weight_decay:g} {size}"


def edges(at_edge: Mapping[str, str]) -> str:
    """`Choice.at_edge` as words: `smallest rate, largest decay`; empty where the choice is at no edge."""
    return ", ".join(f"{end} {AXES[name]}" for name, end in at_edge.items())
