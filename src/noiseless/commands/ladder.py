"""The commands about the whole ladder: run it, print it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.table import Table

from noiseless.commands import execution
from noiseless.commands.console import console, duration
from noiseless.commands.places import ladder_place
from noiseless.exits import DIVERGED, INTERRUPTED
from noiseless.recipes import tables
from noiseless.recipes.config import Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import LADDER, PREDECESSORS, RECIPES, default_form, differences, published, row

if TYPE_CHECKING:
    from noiseless.recipes.recipe import Recipe
    from noiseless.study.reproduce import Job

QUICK = tuple(LADDER)[: tuple(LADDER).index("fb-regularized") + 1]
"""rows of `reproduce --quick`"""


@dataclass(frozen=True)
class Reproduce:
    """Run a table of the paper: every recipe with every seed, then table.md, table.csv and a report."""

    quick: bool = False
    """a first impression: one seed, the rows from sgd to fb-regularized"""
    table: Literal["augmented", "fixed", "architectures"] = "augmented"
    """fresh augmentations at each step; none, or a fixed set of copies; or the ladder for several models"""
    rows: tuple[str, ...] = ()
    """recipes to run; none: all of the table"""
    seeds: int | None = None
    """seeds of each recipe, from 0 on; none: 3"""
    data: str = "digits"
    """data set, see noiseless data list"""
    pixels: int | None = None
    """images are resized and cropped to this size; none: as they are"""
    model: tuple[str, ...] = ()
    """models, see noiseless train --help; none: the form's"""
    form: Literal["small", "paper"] | None = None
    """small: the scaled ladder for small sets; paper: the paper's; none: small for digits and mnist-5k"""
    compat: Literal["none", "published"] = "none"
    """published: the arithmetic of the published code, see docs/parity.md"""
    jobs: int | None = None
    """runs at once, each on one thread; none: one for each core"""
    run_dir: str | None = None
    """directory of the runs; none: runs/reproduce-DATA, with the table's name if it is not augmented"""
    data_dir: str | None = None
    """directory of downloaded and packed data sets; none: that of NOISELESS_DATA, or ~/.cache/noiseless/data"""
    tensorboard: bool = False
    """the rows of each run go to TensorBoard as well, in the run's directory"""
    wandb: str | None = None
    """project of Weights & Biases to which the rows of each run go as well; none: they do not"""
    plan_only: bool = False
    """print the plan with its cost, and run nothing"""


def reproduce(arguments: list[str]) -> int:
    """Runs a table of the paper."""
    asked = tyro.cli(Reproduce, args=arguments, prog="noiseless reproduce")
    names = asked.rows or (QUICK if asked.quick else tuple(LADDER))
    seeds = asked.seeds if asked.seeds is not None else 1 if asked.quick else 3
    for flag, number in (("--seeds", seeds), ("--jobs", asked.jobs)):
        if number is not None and number < 1:
            raise ValueError(f"{flag} must be at least 1, not {number}")
    recipes = _recipes(asked, names)
    settings = Settings(data_dir=asked.data_dir, threads=1, tensorboard=asked.tensorboard, wandb=asked.wandb)
    path = Path(asked.run_dir or ladder_place(asked.data, asked.table))
    if not asked.plan_only:
        execution.import_beside()

    from noiseless.report import page, summary
    from noiseless.report import table as files
    from noiseless.run import tracking
    from noiseless.study import reproduce

    tracking.chosen(settings)  # what is missing is told now, not by each run
    jobs = reproduce.plan(recipes, seeds, path)
    execution.refuse_place(path)
    at_once = asked.jobs or len(os.sched_getaffinity(0))
    costs = reproduce.check(jobs, asked.data_dir)
    _tell_plan(jobs, costs, seeds, at_once, path)
    if asked.plan_only:
        return 0

    def line(job: Job) -> str:
        (run,) = summary.read([job.directory])
        return f"{job.title:24} {summary.line(run)}"

    stopped, failed = execution.execute(jobs, at_once, settings, line, "reproduce")
    models = dict.fromkeys([*(recipe.model.name for recipe in recipes), *reproduce.models(path)])
    whole = [each for model in models for each in _recipes(replace(asked, model=(model,), rows=(), quick=False), ())]
    jobs = reproduce.grown(jobs, whole, path)
    title = f"The paper's table {asked.table!r} on {asked.data}"
    if runs := summary.read(job.directory for job in jobs if job.directory.rows()):
        console.print(summary.table(summary.by_recipe(runs), title))
        page.write(path / "report.html", runs, f"Noiseless: {title}")
        command = shlex.join(["noiseless", "reproduce", *arguments])
        markdown, table = files.write(path, files.lines(jobs), title, command)
        console.print(f"table: {markdown} and {table}\nreport: {path / 'report.html'}")
    if stopped:
        console.print("stopped; the same command goes on from the checkpoints")
        return INTERRUPTED
    return DIVERGED if failed else 0


def _recipes(asked: Reproduce, names: tuple[str, ...]) -> list[Recipe]:
    """The table's recipes, with what the flags replace in all of them."""
    from noiseless.data.datasets import full_name

    data = full_name(asked.data, asked.pixels)
    form = asked.form or default_form(asked.data)
    made = tables.recipes(asked.table, form, data, asked.model, names if asked.rows or asked.quick else ())
    made = [with_flags(each, pixels=asked.pixels) for each in made]
    return [published(each) for each in made] if asked.compat == "published" else made


def _tell_plan(jobs: list[Job], costs: dict[Recipe, float], seeds: int, at_once: int, path: Path) -> None:
    """Prints what will run, and what it costs."""
    from noiseless.study import reproduce

    recipes = dict.fromkeys(replace(job.recipe, seed=0) for job in jobs)
    kept = sum(job.finished for job in jobs)
    made = Table(title=f"plan: {len(jobs)} runs, {at_once} at once on one thread each")
    for heading in ("row", "model", "steps", "passes", "seeds left", "estimate a run"):
        named = heading in ("row", "model")
        made.add_column(heading, justify="left" if named else "right", no_wrap=named)
    for recipe in recipes:
        alike = [job for job in jobs if replace(job.recipe, seed=0) == recipe]
        left = sum(not job.finished for job in alike)
        passes = f"{recipe.schedule.steps * alike[0].passes:g}"
        took = duration(costs[recipe]) if recipe in costs else "-"
        made.add_row(recipe.name, recipe.model.name, str(recipe.schedule.steps), passes, f"{left} of {seeds}", took)
    console.print(made)
    whole = duration(reproduce.estimate(jobs, costs, at_once))
    note = f"{kept} are kept from {path}; " if kept else ""
    to_go = f"{reproduce.passes_left(jobs):g} passes"
    console.print(f"{note}{to_go} to go, about {whole} from a short measurement on this machine")


@dataclass(frozen=True)
class Recipes:
    """Print the ladder: what each recipe replaces in its predecessor."""

    form: str = "paper"
    """paper: as in the paper, for CIFAR-10; small: scaled for digits"""


def recipes(arguments: list[str]) -> int:
    """The ladder as a table of differences."""
    asked = tyro.cli(Recipes, args=arguments, prog="noiseless recipes")
    title = f"the ladder, {asked.form} form: each recipe is the one above, or the one named, with something replaced"
    table = Table(title=title)
    table.add_column("recipe", no_wrap=True)
    table.add_column("steps", justify="right")
    table.add_column("replaces")
    for above, name in zip((None, *RECIPES), RECIPES, strict=False):
        recipe, predecessor = row(name, asked.form), PREDECESSORS.get(name, above)
        changes = differences(recipe, row(predecessor, asked.form) if predecessor else None)
        text = ", ".join(f"{key} {new}" for key, (_, new) in changes.items() if key not in ("steps", "data"))
        note = f"{predecessor}{'' if name in LADDER else '; docs/price.md'}"
        table.add_row(name, str(recipe.schedule.steps), text if predecessor == above else f"(in {note}) {text}")
    console.print(table)
    return 0
