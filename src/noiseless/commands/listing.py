"""The command `runs`, which lists the runs of a directory. It does not import torch, take locks or write files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from noiseless.commands.console import console
from noiseless.commands.parsing import parse
from noiseless.commands.places import slug
from noiseless.errors import message
from noiseless.files import environment, reading
from noiseless.files.finding import runs_below
from noiseless.files.reading import Followed


@dataclass(frozen=True)
class Runs:
    """List the runs in a directory and below it, with their settings, progress and test accuracy."""

    directory: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="[DIR]")] = "runs"
    """directory with runs, such as that of a race"""
    json: bool = False
    """print a JSON list instead of a table, with accuracies from 0 to 1"""


def runs(arguments: list[str]) -> int:
    """Lists runs."""
    args = parse(Runs, arguments, "runs")
    top = Path(args.directory)
    if not top.is_dir():
        raise ValueError(f"{top} is no directory: give one with runs, such as the one of --run-dir")
    try:
        paths = runs_below(top)
    except ValueError:
        raise ValueError(f"{top} holds no runs: noiseless train writes them into runs/, or into --run-dir") from None
    rows = [_row(path, top) for path in paths]
    if args.json:
        print(json.dumps(rows, indent=1))  # noqa: T201
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    tagged = any(row.get("tags") for row in rows)
    for heading in ("run", "data", "model", "recipe", "steps", "accuracy", "state", *(["tags"] if tagged else [])):
        right = heading in ("steps", "accuracy")
        table.add_column(heading, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        if "problem" in row:
            table.add_row(row["run"], "", "", "", "", "", "unreadable")
            continue
        accuracy = row["test_accuracy"]
        table.add_row(
            row["run"],
            slug(row["data"]),
            row["model"],
            row["recipe"],
            f"{row['step']}/{row['steps']}",
            "" if accuracy is None else f"{100 * accuracy:.2f}",
            row["state"],
            *([", ".join(row["tags"])] if tagged else []),
        )
    console.print(table, soft_wrap=False)
    for row in rows:
        if "problem" in row:
            console.print(f"{row['run']}: {row['problem']}", style="yellow")
    return 0


def _row(path: Path, top: Path) -> dict[str, Any]:
    """What is listed of a run."""
    name = str(path.relative_to(top)) if path != top else path.name or str(path)
    try:
        run = Followed(reading.find(path))
        run.look()
    except (ValueError, OSError) as error:
        return {"run": name, "path": str(path), "problem": message(error)}
    recipe, rows = run.recipe, run.rows
    accuracies = [row["test_accuracy"] for row in rows if row.get("test_accuracy") is not None]
    return {
        "run": name,
        "path": str(path),
        "data": recipe.data.name,
        "model": recipe.model.name,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "step": rows[-1]["step"] + 1 if rows else 0,
        "steps": recipe.schedule.steps,
        "test_accuracy": accuracies[-1] if accuracies else None,
        "state": "ended" if run.ended else "running" if run.holder is not None else "stopped",
        "tags": _tags(path),
    }


def _tags(path: Path) -> list[str]:
    """The tags with which a run was started; none if they cannot be read."""
    try:
        return list(environment.read(path).get("tags", []))
    except ValueError:
        return []
