"""The commands about the whole ladder: run it, print it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.table import Table

from noiseless.commands.console import console
from noiseless.commands.interrupt import handled
from noiseless.commands.places import ladder_place
from noiseless.exits import DIVERGED, INTERRUPTED
from noiseless.run.recipes import LADDER, differences, row

if TYPE_CHECKING:
    from noiseless.run.directory import Row


@dataclass(frozen=True)
class Reproduce:
    """Run the paper's ladder: every recipe with every seed, then a table and a report."""

    quick: bool = False
    """a first impression: one seed, up to fb-regularized"""
    rows: tuple[str, ...] = ()
    """recipes to run; none: all"""
    seeds: int | None = None
    """seeds of each recipe, from 0 on; none: 3"""
    data: str = "digits"
    """data set: digits, or npz:FILE"""
    model: str = "resnet8"
    """model, see noiseless train --help"""
    form: str = "small"
    """small: the scaled ladder for small sets; paper: the paper's steps and blocks"""
    jobs: int | None = None
    """runs at once, each on one thread; none: one for each core"""
    run_dir: str | None = None
    """directory of the runs; none: runs/reproduce-DATA"""


def reproduce(arguments: list[str]) -> int:
    """Runs the paper's ladder."""
    asked = tyro.cli(Reproduce, args=arguments, prog="noiseless reproduce")
    names = asked.rows or tuple(LADDER)[: 5 if asked.quick else None]
    seeds = asked.seeds if asked.seeds is not None else 1 if asked.quick else 3
    if seeds < 1 or (asked.jobs is not None and asked.jobs < 1):
        raise ValueError(f"--seeds and --jobs must be at least 1, not {seeds} and {asked.jobs}")
    data = f"npz:{Path(asked.data[4:]).resolve()}" if asked.data.startswith("npz:") else asked.data
    recipes = [replace(row(name, asked.form), data=data, model=asked.model) for name in names]
    path = Path(asked.run_dir or ladder_place(asked.data))
    failed: list[str] = []

    from noiseless.report import live, page, summary
    from noiseless.run import ladder

    jobs = ladder.plan(recipes, seeds, path)
    ladder.check(jobs)
    at_once = asked.jobs or len(os.sched_getaffinity(0))
    kept = sum(job.finished for job in jobs)
    console.print(
        f"{len(jobs)} runs on {asked.data} with {asked.model}, {at_once} at once on one thread each"
        + (f"; {kept} are kept from {path}" if kept else "")
    )
    try:
        with handled(signal.default_int_handler, signal.SIGTERM), live.Live(console) as shown:
            left = {job.title: job.recipe.steps * job.passes for job in jobs if not job.finished}
            if left:
                shown.plan(sum(left.values()))

            def told(job: ladder.Job, found: Row) -> None:
                if job.title in left:  # rows and ends come by two ways: a row may come after the end
                    shown.advance(job.title, job.recipe.steps, found)
                    shown.spend(job.passes)
                    left[job.title] -= job.passes

            def ended(job: ladder.Job, problem: str | None) -> None:
                shown.spend(left.pop(job.title, 0.0))  # a run may be resumed, or end before its steps
                if problem:
                    failed.append(job.title)
                    shown.end(job.title, f"{job.title}: {problem}", "bold red")
                else:
                    (run,) = summary.read([job.directory])
                    shown.end(job.title, f"{job.title:24} {summary.line(run)}")

            ladder.execute(jobs, at_once, told, ended)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the checkpoints")
        return INTERRUPTED
    runs = summary.read(job.directory for job in jobs if job.directory.rows())
    console.print(summary.table(summary.by_recipe(runs), f"the ladder on {asked.data} with {asked.model}"))
    page.write(path / "report.html", runs, f"Noiseless: the paper's ladder on {asked.data}")
    console.print(f"report: {path / 'report.html'}")
    return DIVERGED if failed else 0


@dataclass(frozen=True)
class Recipes:
    """Print the ladder: what each recipe replaces in the one before it."""

    form: str = "paper"
    """paper: as in the paper, for CIFAR-10; small: scaled for digits"""


def recipes(arguments: list[str]) -> int:
    """The ladder as a table of differences."""
    asked = tyro.cli(Recipes, args=arguments, prog="noiseless recipes")
    table = Table(title=f"the ladder, {asked.form} form: each recipe is the one above with something replaced")
    table.add_column("recipe", no_wrap=True)
    table.add_column("steps", justify="right")
    table.add_column("replaces")
    before = None
    for name in LADDER:
        made = row(name, asked.form)
        changes = differences(made, before)
        text = ", ".join(f"{key} {is_}" for key, (_, is_) in changes.items() if key not in ("steps", "data"))
        table.add_row(name, str(made.steps), text)
        before = made
    console.print(table)
    return 0
