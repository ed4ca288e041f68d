"""What runs come to: by recipe, with mean and spread over seeds; as a table in the terminal or in a page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from noiseless.run.directory import Row, RunDirectory

HEADINGS = ("row", "steps", "passes", "test accuracy %", "train loss", "seconds", "seeds")


@dataclass(frozen=True)
class Run:
    """One run as a report sees it."""

    directory: RunDirectory
    name: str
    """of its recipe"""
    seed: int
    steps: int
    """planned"""
    rows: list[Row]


@dataclass(frozen=True)
class Summary:
    """The runs of one recipe."""

    name: str
    runs: list[Run]

    def cells(self) -> tuple[str, ...]:
        """The recipe's line of the table: means, and ± the sample standard deviation over several seeds."""
        last = [run.rows[-1] for run in self.runs]
        tested = [
            next((r["test_accuracy"] for r in reversed(run.rows) if "test_accuracy" in r), None) for run in self.runs
        ]
        unfinished = any(len(run.rows) < run.steps for run in self.runs)
        return (
            self.name + (" (unfinished)" if unfinished else ""),
            _range([row["step"] + 1 for row in last]),
            f"{statistics.mean(row['passes'] for row in last):g}",
            _spread([100 * t for t in tested if t is not None], 2),
            _spread([row["train_loss"] for row in last], 4),
            f"{statistics.mean(sum(row['seconds'] for row in run.rows) for run in self.runs):.1f}",
            str(len(self.runs)),
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
        runs.append(Run(directory, recipe.name, recipe.seed, recipe.steps, rows))
    return runs


def by_recipe(runs: Iterable[Run]) -> list[Summary]:
    """Groups runs by their recipe's name, in the order of first appearance."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    return [Summary(name, group) for name, group in groups.items()]


def table(summaries: Iterable[Summary], title: str) -> Table:
    """The summaries for the terminal."""
    made = Table(title=title)
    for position, heading in enumerate(HEADINGS):
        made.add_column(heading, justify="right" if position else "left", no_wrap=position == 0)
    for summary in summaries:
        made.add_row(*summary.cells())
    return made


def line(run: Run) -> str:
    """A finished run in one line."""
    last = run.rows[-1]
    seconds = sum(row["seconds"] for row in run.rows)
    return (
        f"{last['step'] + 1:5d} steps  {last['passes']:6g} passes  test accuracy {last['test_accuracy']:.2%}"
        f"  train loss {last['train_loss']:.4f}  {seconds:6.1f} s"
    )


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _range(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"
