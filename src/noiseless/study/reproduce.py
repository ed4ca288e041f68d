"""Plans many runs, such as a table of the paper: every recipe with every seed, and what they will cost.

Finished runs are kept and unfinished ones resumed, so the same command continues after an interruption.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from noiseless.cost.cost import Measured, measure, seconds, timing_key
from noiseless.files.directory import RunDirectory
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import differing
from noiseless.recipes.recipe import Recipe
from noiseless.run.speed import keep_memory
from noiseless.run.work import passes_a_step

LEAST = 0.05
"""time spent on measuring each part of a step, in seconds: a race has tens of recipes"""
RESOLVED = ("mean", "std", "norm_block", "horizon", "shuffle")
"""flags that may be None in a planned recipe, and that have a value in the config of a run"""


@dataclass(frozen=True)
class Job:
    """One planned run: a recipe with its seed, and the directory of the run."""

    recipe: Recipe
    path: Path
    keep_every: int | None = None
    """steps between checkpoints that are kept, in place of the settings' number; None: as in the settings"""

    @property
    def title(self) -> str:
        """Name in progress and messages: `RECIPE seed SEED`."""
        return f"{self.recipe.name} seed {self.recipe.seed}"

    @property
    def passes(self) -> float:
        """Passes of a step."""
        return passes_a_step(self.recipe)

    @property
    def directory(self) -> RunDirectory:
        """The directory of the run."""
        return RunDirectory(self.path)

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return self.directory.model.exists()

    def differing(self) -> list[str]:
        """Flags in which the run in its directory differs from the planned recipe; empty if there is no run."""
        if not (self.path / "config.json").exists():
            return []
        existing = self.directory.config().recipe
        return [
            flag for flag, (planned, _) in differing(self.recipe, existing).items()
            if not (planned is None and flag in RESOLVED)
        ]  # fmt: skip

    def refuse_other(self) -> None:
        """Raises if its directory holds a run of another recipe.

        Raises:
            ValueError: with the flags that differ.
        """
        if differs := self.differing():
            raise ValueError(
                f"{self.path} holds a run with another {', '.join(differs)}: choose another --run-dir, or remove the"
                " run"
            )


def plan(rows: Iterable[Recipe], seeds: int, directory: Path) -> list[Job]:
    """Plans each recipe with each seed.

    Args:
        rows: the recipes.
        seeds: number of seeds of each recipe, from 0 on.
        directory: parent directory of the runs.

    Returns:
        The jobs, by recipe and then by seed.

    Raises:
        ValueError: if two runs would have the same directory.
    """
    jobs = [Job(replace(row, seed=seed), _place(directory, row, seed)) for row in rows for seed in range(seeds)]
    by_path: dict[Path, Job] = {}
    for job in jobs:
        other = by_path.setdefault(job.path, job)
        if other is not job:
            models = " and ".join(dict.fromkeys((other.recipe.model.name, job.recipe.model.name)))
            raise ValueError(f"two runs would be in {job.path}: give {models} once, or another --run-dir for one")
    return jobs


def models(directory: Path) -> list[str]:
    """Names of the models of the runs in a directory, sorted."""
    return sorted({recipe.model.name for recipe in _recipes(directory).values()})


def grown(jobs: list[Job], table: Iterable[Recipe], directory: Path) -> list[Job]:
    """Adds the runs of the same table that earlier commands have left in the directory.

    Args:
        jobs: of this command.
        table: all recipes of the table, in its order.
        directory: parent directory of the runs.

    Returns:
        Jobs in the order of the table, then by seed.
    """
    existing = _recipes(directory)
    table_jobs: dict[Path, Job] = {}
    for planned in table:
        row_jobs = [job for job in jobs if replace(job.recipe, name=planned.name, seed=0) == planned]
        for path, recipe in existing.items():
            if recipe.name not in (planned.name, f"{planned.name}-{recipe.model.name}"):
                continue  # a run of another row may differ only in flags that this row leaves open, as shuffle
            job = Job(replace(planned, name=recipe.name, seed=recipe.seed), path)
            if path == _place(directory, recipe, recipe.seed) and not job.differing():
                row_jobs.append(job)
        for job in sorted(row_jobs, key=lambda job: (job.recipe.name, job.recipe.seed)):
            table_jobs.setdefault(job.path, job)
    return list(table_jobs.values())


def _recipes(directory: Path) -> dict[Path, Recipe]:
    """Recipes of the runs in a directory. Runs whose config cannot be read, as of other versions, are left out."""
    recipes = {}
    for file in sorted(directory.glob("*/config.json")):
        with suppress(ValueError):
            recipes[file.parent] = RunDirectory(file.parent).config().recipe
    return recipes


def _place(directory: Path, row: Recipe, seed: int) -> Path:
    """Directory of a run: `DIRECTORY/NAME-seedSEED`."""
    return directory / f"{row.name}-seed{seed}"


def check(jobs: list[Job], data_dir: str | None = None) -> dict[Recipe, float]:
    """Checks that planned runs are possible, before anything is written, and measures what they cost.

    Args:
        jobs: the planned runs.
        data_dir: directory of data sets; None: the default.

    Returns:
        Recipe (with the seed 0) -> seconds of a run, from a short measurement; only recipes with unfinished runs.

    Raises:
        ValueError: as in `refuse_others` and `costs`.
    """
    refuse_others(jobs, data_dir)
    return costs(dict.fromkeys(replace(job.recipe, seed=0) for job in jobs if not job.finished), data_dir)


def refuse_others(jobs: list[Job], data_dir: str | None = None) -> None:
    """Raises if the directory of a planned run holds another run.

    Args:
        jobs: the planned runs.
        data_dir: directory of data sets; None: the default.

    Raises:
        ValueError: if a directory holds a run of another recipe, or of data that have changed since.
    """
    from noiseless.data import home, load

    for job in jobs:
        job.refuse_other()
    sets = {(job.recipe.data.name, job.recipe.data.pixels) for job in jobs}
    digests = {(data, pixels): load(data, home(data_dir), pixels).sha256() for data, pixels in sets}
    for job in jobs:
        if (job.path / "config.json").exists():
            job.directory.refuse_other_data(digests[job.recipe.data.name, job.recipe.data.pixels])


def costs(
    recipes: Iterable[Recipe], data_dir: str | None = None, compile: Literal["auto", "on", "off"] = "auto"
) -> dict[Recipe, float]:
    """Measures how long runs will take on one thread.

    Args:
        recipes: of the runs; recipes whose steps do the same work are measured once.
        data_dir: directory of data sets; None: the default.
        compile: whether the runs use compiled code, see `Settings`.

    Returns:
        Recipe -> seconds of a run.

    Raises:
        ValueError: if a recipe does not suit the data, the model or the machine.
    """
    from noiseless.run.build import build

    keep_memory()  # as in the processes of the runs
    settings = Settings(threads=1, data_dir=data_dir, compile=compile)
    seconds_by_recipe: dict[Recipe, float] = {}
    measured: dict[Recipe, Measured] = {}
    for recipe in recipes:
        Config(recipe, settings).check()
        key = timing_key(recipe)
        if key not in measured:
            measured[key] = measure(build(Config(recipe, settings)), LEAST)
        seconds_by_recipe[recipe] = seconds(recipe, settings, measured[key])
    return seconds_by_recipe


def estimate(jobs: list[Job], costs: dict[Recipe, float], at_once: int) -> float:
    """Seconds until all jobs have ended: their sum divided by the processes, or the longest job if that is more."""
    left = [costs[replace(job.recipe, seed=0)] * _share_left(job) for job in jobs if not job.finished]
    return max([sum(left) / at_once, *left], default=0.0)


def passes_left(jobs: list[Job]) -> float:
    """Passes that remain until all jobs have ended, by the steps in their records."""
    return sum(job.recipe.schedule.steps * job.passes * _share_left(job) for job in jobs if not job.finished)


def _share_left(job: Job) -> float:
    """Share of a job's steps that are not in its record, in [0, 1]."""
    done = job.directory.rows()[-1]["step"] + 1 if job.directory.rows() else 0
    return 1 - done / job.recipe.schedule.steps
