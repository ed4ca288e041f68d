"""What runs come to: by recipe, with mean and spread over seeds; as a table in the terminal or in a page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from noiseless.files.directory import Row, RunDirectory
from noiseless.recipes.recipe import Recipe
from noiseless.study import grouping

HEADINGS = ("row", "steps", "passes", "test accuracy %", "train loss", "seconds", "seeds")
NEEDED = {"step", "passes", "lr", "train_loss", "gradient_norm", "parameter_norm", "penalty", "seconds"}
"""what a report takes from each row"""

LARGE = 1e6
"""from which on a number is shown with its exponent"""


@dataclass(frozen=True)
class Run:
    """One run as a report sees it."""

    directory: RunDirectory
    recipe: Recipe
    rows: list[Row]

    @property
    def path(self) -> Path:
        """Its directory's path."""
        return self.directory.path

    @property
    def seed(self) -> int:
        """Its recipe's seed."""
        return self.recipe.seed

    @property
    def ended(self) -> bool:
        """Whether it has reached its end; one that was stopped, or whose loss was not finite, has not."""
        return self.directory.model.exists()

    @property
    def seconds(self) -> float:
        """Time in its steps."""
        return sum(row["seconds"] for row in self.rows)

    @property
    def accuracy(self) -> float | None:
        """The last test accuracy, 0 ... 1; None where it was never tested."""
        return next((row["test_accuracy"] for row in reversed(self.rows) if "test_accuracy" in row), None)


@dataclass(frozen=True)
class Figures:
    """What the runs of one recipe come to; a spread over seeds is the sample standard deviation, None of one seed."""

    steps: float
    passes: float
    accuracy: tuple[float | None, float | None]
    """mean and spread of the last test accuracy, 0 ... 1; None where no run was tested"""
    loss: tuple[float | None, float | None]
    """mean and spread of the last training loss"""
    seconds: float
    """mean over the runs of the time in steps"""


@dataclass(frozen=True)
class Summary:
    """The runs of one recipe, which differ in their seeds."""

    name: str
    """the recipe's, with what it has of its own where another recipe is called the same"""
    runs: list[Run]

    @property
    def counted(self) -> list[Run]:
        """Those that figures are of: the ended ones, as a run that stopped short is no result; or all, if none has."""
        return [run for run in self.runs if run.ended] or self.runs

    def figures(self) -> Figures:
        """The recipe's figures, unrounded."""
        last = [run.rows[-1] for run in self.counted]
        return Figures(
            steps=statistics.mean(row["step"] + 1 for row in last),
            passes=statistics.mean(row["passes"] for row in last),
            accuracy=mean_and_spread([a for run in self.counted if (a := run.accuracy) is not None]),
            loss=mean_and_spread([row["train_loss"] for row in last]),
            seconds=statistics.mean(run.seconds for run in self.counted),
        )

    def cells(self) -> tuple[str, ...]:
        """The recipe's line of the table: means, and ± the sample standard deviation over several seeds."""
        last = [run.rows[-1] for run in self.counted]
        tested = [run.accuracy for run in self.counted]
        lacking = sum(not run.ended for run in self.runs)
        note = f" ({lacking} of {len(self.runs)} unfinished)" if len(self.runs) > lacking else " (unfinished)"
        return (
            self.name + (note if lacking else ""),
            _range([row["step"] + 1 for row in last]),
            f"{statistics.mean(row['passes'] for row in last):g}",
            spread([100 * t for t in tested if t is not None], 2),
            spread([row["train_loss"] for row in last], 4),
            f"{statistics.mean(run.seconds for run in self.counted):.1f}",
            str(len(self.counted)),
        )


def read(directories: Iterable[RunDirectory]) -> list[Run]:
    """Reads runs for a report.

    Args:
        directories: of runs, finished or not.

    Returns:
        The runs, in the given order.

    Raises:
        ValueError: if a run has no row yet, or cannot be read.
    """
    runs = []
    for directory in directories:
        recipe, rows = directory.config().recipe, directory.rows()
        if not rows:
            raise ValueError(f"{directory.path} has no finished step yet: there is nothing to report")
        lacking = next((NEEDED - row.keys() for row in rows if NEEDED - row.keys()), None)
        if lacking:
            raise ValueError(f"{directory.metrics} has a row without {', '.join(sorted(lacking))}: it is damaged")
        runs.append(Run(directory, recipe, rows))
    return runs


def by_recipe(runs: Iterable[Run]) -> list[Summary]:
    """Groups runs that differ in nothing but their seed, in the order of first appearance.

    Args:
        runs: each recipe with each seed at most once.

    Returns:
        One summary a recipe; where two recipes have one name, the fields in which they differ are put behind it.

    Raises:
        ValueError: if a recipe is there twice with the same seed, which would pass for two seeds.
    """
    groups = grouping.by_recipe(runs)
    named = zip(grouping.names(list(groups)), groups.values(), strict=True)
    return [Summary(name, alike) for name, alike in named]


def table(summaries: Iterable[Summary], title: str) -> Table:
    """The summaries for the terminal."""
    made = Table(title=title)
    rows = [summary.cells() for summary in summaries]
    for position, heading in enumerate(HEADINGS):
        widest = max((len(row[position]) for row in rows), default=0)  # headings may break, figures may not
        made.add_column(heading, justify="right" if position else "left", min_width=widest)
    for row in rows:
        made.add_row(*row)
    return made


def line(run: Run) -> str:
    """A finished run in one line."""
    last = run.rows[-1]
    return (
        f"{last['step'] + 1:5d} steps  {last['passes']:6g} passes  test accuracy {last['test_accuracy']:.2%}"
        f"  train loss {last['train_loss']:.4f}  {run.seconds:6.1f} s"
    )


def mean_and_spread(values: list[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation, NaN where a value is not finite; None where there are too few for it."""
    if not values:
        return None, None
    if not all(map(math.isfinite, values)):
        return math.nan, math.nan if len(values) > 1 else None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def spread(values: list[float], digits: int) -> str:
    """The same as text, `mean ± deviation`; a hyphen for no values."""
    mean, deviation = mean_and_spread(values)
    if mean is None:
        return "-"
    shown = f".{digits}f" if max(values) < LARGE else ".3g"
    return f"{mean:{shown}}" if deviation is None else f"{mean:{shown}} ± {deviation:{shown}}"


def _range(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"
