"""Results of runs by recipe: mean and spread over seeds, as a table for the terminal and for the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from noiseless.files.directory import Row, RunDirectory
from noiseless.recipes.recipe import Recipe
from noiseless.screen import print_note
from noiseless.study import grouping

HEADINGS = ("row", "steps", "passes", "test accuracy %", "train loss, last step", "seconds", "seeds")
LOSS = (
    "The train loss is that of the last step before its update, of images as the step saw them (augmented), without"
    " penalty; noiseless evaluate gives the loss of the final parameters on unchanged images."
)
"""which loss a table shows"""
NEEDED = {"step", "passes", "lr", "train_loss", "gradient_norm", "parameter_norm", "penalty", "seconds"}
"""columns that a report needs in every row of `metrics.jsonl`"""
FINITE = {"passes", "lr", "seconds"}
"""columns whose numbers are always finite"""

LISTS = ("eigenvalues", "eigenvalue_residuals")
"""columns with a list of numbers"""
LONGEST = 14
"""columns of a recipe's name that are kept on one line of a terminal"""
LARGE = 1e6
"""numbers from this size on are shown with an exponent"""


@dataclass(frozen=True)
class Run:
    """A run as the report uses it: its directory, its recipe and its rows."""

    directory: RunDirectory
    recipe: Recipe
    rows: list[Row]

    @property
    def path(self) -> Path:
        """Path of the run's directory."""
        return self.directory.path

    @property
    def seed(self) -> int:
        """Seed of the recipe."""
        return self.recipe.seed

    @property
    def ended(self) -> bool:
        """Whether the run is complete. One that was stopped, or whose loss was not finite, is not."""
        return self.directory.model.exists()

    @property
    def seconds(self) -> float:
        """Total time of the steps, in seconds."""
        return sum(row["seconds"] for row in self.rows)

    @property
    def accuracy(self) -> float | None:
        """The last test accuracy, 0 ... 1; None if there is none."""
        return next((row["test_accuracy"] for row in reversed(self.rows) if "test_accuracy" in row), None)


@dataclass(frozen=True)
class Figures:
    """Results of one recipe over its seeds. A spread is the sample standard deviation; None for one seed."""

    steps: float
    passes: float
    accuracy: tuple[float | None, float | None]
    """mean and spread of the last test accuracy, 0 ... 1; None if no run has one"""
    loss: tuple[float | None, float | None]
    """mean and spread of the last training loss"""
    seconds: float
    """mean over the runs of the total time of their steps"""


@dataclass(frozen=True)
class Summary:
    """The runs of one recipe, which differ only in their seeds."""

    name: str
    """name of the recipe; if another recipe has the same name, followed by the fields in which they differ"""
    runs: list[Run]

    @property
    def counted(self) -> list[Run]:
        """The runs that results are computed from: those that have ended, or all if none has."""
        return [run for run in self.runs if run.ended] or self.runs

    def figures(self) -> Figures:
        """The recipe's results, unrounded."""
        last = [run.rows[-1] for run in self.counted]
        return Figures(
            steps=statistics.mean(row["step"] + 1 for row in last),
            passes=statistics.mean(row["passes"] for row in last),
            accuracy=mean_and_spread([a for run in self.counted if (a := run.accuracy) is not None]),
            loss=mean_and_spread([row["train_loss"] for row in last]),
            seconds=statistics.mean(run.seconds for run in self.counted),
        )

    def cells(self) -> tuple[str, ...]:
        """The recipe's row of the table: means, with ± sample standard deviation if there are several seeds."""
        last = [run.rows[-1] for run in self.counted]
        accuracies = [run.accuracy for run in self.counted]
        unfinished = sum(not run.ended for run in self.runs)
        note = f" ({unfinished} of {len(self.runs)} unfinished)" if len(self.runs) > unfinished else " (unfinished)"
        return (
            self.name + (note if unfinished else ""),
            _range([row["step"] + 1 for row in last]),
            f"{statistics.mean(row['passes'] for row in last):g}",
            spread([100 * accuracy for accuracy in accuracies if accuracy is not None], 2),
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
        recipe, rows, lacking = directory.config().recipe, directory.rows(), directory.lacking()
        if not rows:
            problem = lacking or "there is nothing to report"
            raise ValueError(f"{directory.path} has no finished step yet: {problem}")
        if lacking:
            print_note(f"{lacking}; what follows is of the other rows")
        runs.append(Run(directory, recipe, _complete(directory, rows)))
    return runs


def _complete(directory: RunDirectory, rows: list[Row]) -> list[Row]:
    """The rows with numbers in all needed columns; a note names what the others lack. Raises if there are none."""
    # a column that is missing counts as one that holds text
    lacking = [
        sorted(name for name in NEEDED | row.keys() if not _fits(name, row.get(name, "missing"))) for row in rows
    ]
    lacks = next((names for names in lacking if names), None)
    if lacks is None:
        return rows
    problem = f"{directory.metrics} has a row without {', '.join(lacks)}: it is damaged"
    complete = [row for row, names in zip(rows, lacking, strict=True) if not names]
    if not complete:
        raise ValueError(problem)
    print_note(f"{problem}, and left out")
    return complete


def _fits(name: str, value: Any) -> bool:
    """Whether a value can be that column's: a number, None if it is not finite, or numbers in a list or by name."""
    if name == "final":
        return isinstance(value, dict)
    if name in LISTS:
        return isinstance(value, list) and all(map(_is_number, value))
    if name == "layers":
        parts = list(value.values()) if isinstance(value, dict) else [None]
        return all(isinstance(part, dict) and all(map(_is_number, part.values())) for part in parts)
    return _is_number(value) and not (value is None and name in FINITE)


def _is_number(value: Any) -> bool:
    """Whether a value is a number or None."""
    return value is None or type(value) in (int, float)


def by_recipe(runs: Iterable[Run], labels: Sequence[str] = ()) -> list[Summary]:
    """Groups runs that differ only in their seed, in the order of first appearance.

    Args:
        runs: each recipe with each seed at most once.
        labels: names of the recipes, in the order of first appearance; empty: their own.

    Returns:
        One summary for each recipe. If two recipes have the same name, the fields in which they differ follow the
        name.

    Raises:
        ValueError: if a recipe occurs twice with the same seed, which would count as two seeds.
    """
    groups = grouping.by_recipe(runs)
    named = zip(grouping.labelled(labels, list(groups)), groups.values(), strict=True)
    return [Summary(name, group) for name, group in named]


def table(summaries: Iterable[Summary], title: str) -> Table:
    """The table of the summaries for the terminal; it fits into 80 columns, where a long name is broken into lines."""
    shown = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    rows = [summary.cells() for summary in summaries]
    for position, heading in enumerate(HEADINGS):
        widest = max((len(row[position]) for row in rows), default=0)  # only headings may be broken into lines
        if position:
            shown.add_column(heading, justify="right", min_width=widest)
        else:
            shown.add_column(heading, overflow="fold", min_width=min(widest, LONGEST))
    for row in rows:
        shown.add_row(*row)
    return shown


def line(run: Run) -> str:
    """A finished run in one line."""
    last = run.rows[-1]
    return (
        f"{last['step'] + 1:5d} steps  {last['passes']:6g} passes  test accuracy {last['test_accuracy']:.2%}"
        f"  train loss of the last step {last['train_loss']:.4f}  {run.seconds:6.1f} s"
    )


def mean_and_spread(values: list[float]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation: NaN if a value is not finite, None if there are too few values."""
    if not values:
        return None, None
    if not all(map(math.isfinite, values)):
        return math.nan, math.nan if len(values) > 1 else None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def spread(values: list[float], digits: int) -> str:
    """Mean and sample standard deviation as text, `mean ± deviation`; a hyphen if there are no values."""
    mean, deviation = mean_and_spread(values)
    if mean is None:
        return "-"
    shown = f".{digits}f" if max(values) < LARGE else ".3g"
    return f"{mean:{shown}}" if deviation is None else f"{mean:{shown}} ± {deviation:{shown}}"


def _range(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"
