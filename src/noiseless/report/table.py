"""The table of a ladder as files: Markdown to read and paste, CSV to compute with."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from noiseless.report.summary import Summary
from noiseless.run.atomic import write_bytes

COLUMNS = (
    "row", "model", "data", "steps", "passes", "n", "test_accuracy_mean", "test_accuracy_std", "train_loss_mean",
    "train_loss_std", "seconds_mean",
)  # fmt: skip


def write(directory: Path, summaries: Iterable[Summary], title: str, command: str) -> tuple[Path, Path]:
    """Writes `table.md` and `table.csv`.

    Args:
        directory: of the runs.
        summaries: one a row.
        title: heading of the Markdown file.
        command: that makes the table.

    Returns:
        Both paths.
    """
    rows = list(summaries)
    markdown, table = directory / "table.md", directory / "table.csv"
    write_bytes(markdown, _markdown(rows, title, command).encode())
    write_bytes(table, _csv(rows).encode())
    return markdown, table


def _markdown(rows: list[Summary], title: str, command: str) -> str:
    lines = [
        f"# {title}",
        "",
        f"`{command}`: test accuracy and final training loss, mean ± sample standard deviation over n seeds.",
        "",
        "| row | steps | passes | test accuracy % | train loss | n |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        name, steps, passes, accuracy, loss, _, seeds = row.cells()
        lines.append(f"| {name} | {steps} | {passes} | {accuracy} | {loss} | {seeds} |")
    return "\n".join(lines) + "\n"


def _csv(rows: list[Summary]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        recipe = row.runs[0].recipe
        figures = row.figures()
        writer.writerow(
            [
                row.name, recipe.model, recipe.data, figures.steps, figures.passes, len(row.runs),
                *figures.accuracy, *figures.loss, figures.seconds,
            ]
        )  # fmt: skip
    return text.getvalue()
