"""The table of a ladder as files, `table.md` and `table.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from noiseless.files.atomic import write_bytes
from noiseless.printable import markdown
from noiseless.recipes.recipe import Recipe
from noiseless.report import summary
from noiseless.report.summary import Summary
from noiseless.study.reproduce import Job

COLUMNS = (
    "row", "model", "data", "steps", "passes", "n", "unfinished", "test_accuracy_mean", "test_accuracy_std",
    "train_loss_mean", "train_loss_std", "seconds_mean",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    recipe: Recipe
    """the recipe with seed 0"""
    ended: Summary | None
    """the runs that have ended; None if there are none"""
    unfinished: int
    """number of runs that have not ended: not begun, stopped, or with a loss that is not finite. They are in no mean"""


def lines(jobs: Iterable[Job]) -> list[Line]:
    """The rows of a table, in the order of first appearance.

    Args:
        jobs: each recipe with each seed at most once.

    Returns:
        One line for each recipe.
    """
    groups: dict[Recipe, list[Job]] = {}
    for job in jobs:
        groups.setdefault(replace(job.recipe, seed=0), []).append(job)
    rows = []
    for recipe, group in groups.items():
        ended = summary.read(job.directory for job in group if job.finished)
        result = Summary(recipe.name, ended) if ended else None
        rows.append(Line(recipe, result, len(group) - len(ended)))
    return rows


def write(directory: Path, table_lines: Iterable[Line], title: str, command: str) -> tuple[Path, Path]:
    """Writes `table.md` and `table.csv`.

    Args:
        directory: of the runs.
        table_lines: the rows.
        title: heading of the Markdown file.
        command: the last command that added runs to the table.

    Returns:
        Paths of both files.
    """
    rows = list(table_lines)
    markdown, table = directory / "table.md", directory / "table.csv"
    write_bytes(markdown, _markdown(rows, title, command).encode())
    write_bytes(table, _csv(rows).encode())
    return markdown, table


def _markdown(rows: list[Line], title: str, command: str) -> str:
    text = [
        f"# {title}",
        "",
        "Test accuracy and final training loss, mean ± sample standard deviation over n seeds. Last command:"
        f" `{command}`",
        "",
        "| row | steps | passes | test accuracy % | train loss | n |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = row.ended.cells() if row.ended else (row.recipe.name, "-", "-", "-", "-", "-", "0")
        name, steps, passes, accuracy, loss, _, seeds = cells
        name = markdown(name) + (f" ({row.unfinished} unfinished)" if row.unfinished else "")
        text.append(f"| {name} | {steps} | {passes} | {accuracy} | {loss} | {seeds} |")
    if any(row.unfinished for row in rows):
        text += ["", "Unfinished runs were stopped, or their loss was not finite. They are not part of any mean."]
    return "\n".join(text) + "\n"


def _csv(rows: list[Line]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        recipe = row.recipe
        results = row.ended.figures() if row.ended else None
        writer.writerow([
            recipe.name, recipe.model.name, recipe.data.name, results and results.steps, results and results.passes,
            len(row.ended.runs) if row.ended else 0, row.unfinished,
            *(results.accuracy if results else (None, None)), *(results.loss if results else (None, None)),
            results and results.seconds,
        ])  # fmt: skip
    return text.getvalue()
