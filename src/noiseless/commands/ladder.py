"""The commands `reproduce`, which runs a table of the paper, and `recipes`, which prints the ladder."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.table import Table

from noiseless.commands import execution
from noiseless.commands.console import console, duration
from noiseless.commands.execution import MOST_JOBS
from noiseless.commands.parsing import parse
from noiseless.commands.places import ladder_place
from noiseless.exits import DIVERGED, INTERRUPTED
from noiseless.recipes import tables
from noiseless.recipes.checks import at_least, positive
from noiseless.recipes.config import Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import LADDER, PREDECESSORS, RECIPES, default_form, differences, published, row
from noiseless.recipes.parts.data import MOST_PIXELS
from noiseless.run import prepared
from noiseless.system import cores
from noiseless.trust import permit_functions

if TYPE_CHECKING:
    from noiseless.recipes.recipe import Recipe
    from noiseless.study.reproduce import Job

QUICK = tuple(LADDER)[: tuple(LADDER).index("fb-regularized") + 1]
"""recipes of `reproduce --quick`"""
MOST_SEEDS = 1000
"""largest number of seeds of a recipe"""


@dataclass(frozen=True)
class Reproduce:
    """Run a table of the paper: train every recipe with every seed, then write table.md, table.csv and a report.

    Finished runs are kept, so the same command continues after an interruption.
    """

    quick: bool = False
    """a short version: one seed, the recipes from sgd to fb-regularized"""
    table: Literal["augmented", "fixed", "architectures"] = "augmented"
    """augmented: fresh augmentations at each step; fixed: none, or fixed copies; architectures: several models"""
    rows: tuple[str, ...] = ()
    """recipes to run, see noiseless recipes; none: all of the table"""
    seeds: int | None = None
    """number of seeds of each recipe, from 0 on; none: 3, or 1 with --quick"""
    data: str = "digits"
    """data set, see noiseless data list"""
    pixels: int | None = None
    """size to which images are resized and cropped; none: unchanged"""
    model: tuple[str, ...] = ()
    """models, see noiseless models; none: those of the table, in its form"""
    form: Literal["small", "paper"] | None = None
    """paper: as in the paper; small: scaled down; none: small for digits and mnist-5k, paper for other data"""
    compat: Literal["none", "published"] = "none"
    """published: the arithmetic of the paper's published code, see docs/parity.md"""
    jobs: int | None = None
    """number of parallel runs, each on one thread; none: one for each core"""
    run_dir: str | None = None
    """directory of the runs; none: runs/reproduce-DATA, or runs/reproduce-DATA-TABLE for the other tables"""
    data_dir: str | None = None
    """directory of data sets; none: the environment variable NOISELESS_DATA, or ~/.cache/noiseless/data"""
    tensorboard: bool = False
    """also log each run to TensorBoard, in its directory"""
    wandb: str | None = None
    """also log each run to this project of Weights & Biases; none: do not"""
    plan_only: bool = False
    """print the planned runs and their cost, and run nothing"""


def reproduce(arguments: list[str]) -> int:
    """Runs a table of the paper."""
    args = parse(Reproduce, arguments, "reproduce")
    permit_functions(args.data, *args.model)
    names = args.rows or (QUICK if args.quick else tuple(LADDER))
    seeds = args.seeds if args.seeds is not None else 1 if args.quick else 3
    at_least("seeds", seeds, 1, MOST_SEEDS)
    at_least("jobs", args.jobs, 1, MOST_JOBS)
    positive("pixels", args.pixels, MOST_PIXELS)
    recipes = _recipes(args, names)
    settings = Settings(data_dir=args.data_dir, threads=1, tensorboard=args.tensorboard, wandb=args.wandb)
    path = Path(args.run_dir or ladder_place(args.data, args.table))
    console.print(f"planning {len(recipes)} recipes on {args.data}")
    if not args.plan_only:
        prepared.start()

    from noiseless.report import page, summary
    from noiseless.report import table as files
    from noiseless.run import tracking
    from noiseless.study import reproduce

    tracking.chosen(settings)  # raises now, not in each run, if a tracker is missing
    jobs = reproduce.plan(recipes, seeds, path)
    execution.refuse_place(path)
    at_once = args.jobs or cores()
    costs = reproduce.check(jobs, args.data_dir)
    _print_plan(jobs, costs, seeds, at_once, path)
    if args.plan_only:
        return 0

    def line(job: Job) -> str:
        (run,) = summary.read([job.directory])
        return f"{job.title:24} {summary.line(run)}"

    stopped, failed = execution.execute(jobs, at_once, settings, line, "reproduce")
    models = dict.fromkeys([*(recipe.model.name for recipe in recipes), *reproduce.models(path)])
    full_table = [
        recipe for model in models for recipe in _recipes(replace(args, model=(model,), rows=(), quick=False), ())
    ]
    jobs = reproduce.grown(jobs, full_table, path)
    title = f"The paper's table {args.table!r} on {args.data}"
    if runs := summary.read(job.directory for job in jobs if job.directory.rows()):
        console.print(summary.table(summary.by_recipe(runs), title))
        page.write(path / "report.html", runs, f"Noiseless: {title}")
        command = shlex.join(["noiseless", "reproduce", *arguments])
        markdown, table = files.write(path, files.lines(jobs), title, command)
        console.print(f"table: {markdown} and {table}\nreport: {path / 'report.html'}")
    if stopped:
        console.print("stopped; run the same command again to continue from the checkpoints")
        return INTERRUPTED
    return DIVERGED if failed else 0


def _recipes(args: Reproduce, names: tuple[str, ...]) -> list[Recipe]:
    """The recipes of the table, with the fields that the flags replace in all of them."""
    from noiseless.data.catalogue import full_name

    data = full_name(args.data, args.pixels)
    form = args.form or default_form(args.data)
    recipes = tables.recipes(args.table, form, data, args.model, names if args.rows or args.quick else ())
    recipes = [with_flags(recipe, pixels=args.pixels) for recipe in recipes]
    return [published(recipe) for recipe in recipes] if args.compat == "published" else recipes


def _print_plan(jobs: list[Job], costs: dict[Recipe, float], seeds: int, at_once: int, path: Path) -> None:
    """Prints the planned runs and their cost."""
    from noiseless.study import reproduce

    recipes = dict.fromkeys(replace(job.recipe, seed=0) for job in jobs)
    finished = sum(job.finished for job in jobs)
    table = Table(title=f"plan: {len(jobs)} runs, {at_once} in parallel on one thread each")
    for heading in ("recipe", "model", "steps", "passes", "seeds left", "time of a run"):
        is_name = heading in ("recipe", "model")
        table.add_column(heading, justify="left" if is_name else "right", no_wrap=is_name)
    for recipe in recipes:
        seed_jobs = [job for job in jobs if replace(job.recipe, seed=0) == recipe]
        left = sum(not job.finished for job in seed_jobs)
        passes = f"{recipe.schedule.steps * seed_jobs[0].passes:g}"
        time = duration(costs[recipe]) if recipe in costs else "-"
        table.add_row(recipe.name, recipe.model.name, str(recipe.schedule.steps), passes, f"{left} of {seeds}", time)
    console.print(table)
    total = duration(reproduce.estimate(jobs, costs, at_once))
    note = f"{finished} of {len(jobs)} runs have finished in {path}; " if finished else ""
    to_go = f"{reproduce.passes_left(jobs):g} passes"
    console.print(f"{note}{to_go} to go, about {total} from a short measurement on this machine")


@dataclass(frozen=True)
class Recipes:
    """Print the ladder: the fields that each recipe replaces in its predecessor."""

    form: str = "paper"
    """paper: as in the paper, for CIFAR-10; small: scaled down for digits"""


def recipes(arguments: list[str]) -> int:
    """Prints the ladder as a table of differences."""
    args = parse(Recipes, arguments, "recipes")
    title = (
        f"the ladder, {args.form} form: each recipe is the one above, or the one in parentheses, with fields replaced"
    )
    table = Table(title=title)
    table.add_column("recipe", no_wrap=True)
    table.add_column("steps", justify="right")
    table.add_column("replaces")
    for above, name in zip((None, *RECIPES), RECIPES, strict=False):
        recipe, predecessor = row(name, args.form), PREDECESSORS.get(name, above)
        changes = differences(recipe, row(predecessor, args.form) if predecessor else None)
        text = ", ".join(f"{key} {new}" for key, (_, new) in changes.items() if key not in ("steps", "data"))
        note = f"{predecessor}{'' if name in LADDER else '; docs/price.md'}"
        table.add_row(name, str(recipe.schedule.steps), text if predecessor == above else f"(in {note}) {text}")
    console.print(table)
    return 0
