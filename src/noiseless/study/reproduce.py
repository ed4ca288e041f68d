"""The whole ladder as a plan: every row with every seed, each a run of its own, and what that will cost.

Finished runs are kept and unfinished ones resumed, so the same command goes on after an interruption.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from noiseless.cost.cost import Measured, alike, measure, seconds
from noiseless.files.directory import RunDirectory
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import differing
from noiseless.recipes.recipe import Recipe
from noiseless.run.speed import keep_memory
from noiseless.run.work import passes_a_step

RESOLVED = ("mean", "std", "norm_block", "horizon", "shuffle")
"""flags that a plan may leave open, and the config of a run does not"""


@dataclass(frozen=True)
class Job:
    """One row of the ladder with one seed."""

    recipe: Recipe
    path: Path

    @property
    def title(self) -> str:
        """How it is called in progress."""
        return f"{self.recipe.name} seed {self.recipe.seed}"

    @property
    def passes(self) -> float:
        """What a step costs."""
        return passes_a_step(self.recipe)

    @property
    def directory(self) -> RunDirectory:
        """Where its record is."""
        return RunDirectory(self.path)

    @property
    def finished(self) -> bool:
        """Whether its run has ended."""
        return self.directory.model.exists()

    def differing(self) -> list[str]:
        """Flags in which the run at its place is another than planned; none where there is no run."""
        if not (self.path / "config.json").exists():
            return []
        found = self.directory.config().recipe
        return [
            flag for flag, (wanted, _) in differing(self.recipe, found).items()
            if not (wanted is None and flag in RESOLVED)
        ]  # fmt: skip

    def refuse_other(self) -> None:
        """Raises if its place holds a run of another recipe.

        Raises:
            ValueError: naming the flags that differ.
        """
        if differs := self.differing():
            raise ValueError(
                f"{self.path} holds a run with another {', '.join(differs)}: choose another --run-dir, or remove it"
            )


def plan(rows: Iterable[Recipe], seeds: int, directory: Path) -> list[Job]:
    """The runs of a ladder, the seeds of a row in turn.

    Args:
        rows: their recipes.
        seeds: of each, from 0 on.
        directory: of the runs.

    Returns:
        The jobs.

    Raises:
        ValueError: if two of them would have one place.
    """
    jobs = [Job(replace(row, seed=seed), _place(directory, row, seed)) for row in rows for seed in range(seeds)]
    by_path: dict[Path, Job] = {}
    for job in jobs:
        other = by_path.setdefault(job.path, job)
        if other is not job:
            models = " and ".join(dict.fromkeys((other.recipe.model.name, job.recipe.model.name)))
            raise ValueError(f"two runs would be at {job.path}: give {models} once, or in two places")
    return jobs


def models(directory: Path) -> list[str]:
    """The models of the runs in a directory, by name."""
    return sorted({recipe.model.name for recipe in _recipes(directory).values()})


def grown(jobs: list[Job], table: Iterable[Recipe], directory: Path) -> list[Job]:
    """The jobs, and with them the runs of the same table that earlier commands have left beside them.

    Args:
        jobs: of this command.
        table: all recipes of the table, in its order.
        directory: of the runs.

    Returns:
        Jobs in the table's order, by seed.
    """
    there = _recipes(directory)
    whole: dict[Path, Job] = {}
    for planned in table:
        found = [job for job in jobs if replace(job.recipe, name=planned.name, seed=0) == planned]
        for path, recipe in there.items():
            if recipe.name not in (planned.name, f"{planned.name}-{recipe.model.name}"):
                continue  # what a row leaves open, another may have set: fb-strong does not say whether it shuffles
            job = Job(replace(planned, name=recipe.name, seed=recipe.seed), path)
            if path == _place(directory, recipe, recipe.seed) and not job.differing():
                found.append(job)
        for job in sorted(found, key=lambda job: (job.recipe.name, job.recipe.seed)):
            whole.setdefault(job.path, job)
    return list(whole.values())


def _recipes(directory: Path) -> dict[Path, Recipe]:
    """What the runs in a directory are; one whose config cannot be read is none of this version's."""
    found = {}
    for file in sorted(directory.glob("*/config.json")):
        with suppress(ValueError):
            found[file.parent] = RunDirectory(file.parent).config().recipe
    return found


def _place(directory: Path, row: Recipe, seed: int) -> Path:
    return directory / f"{row.name}-seed{seed}"


def check(jobs: list[Job], data_dir: str | None = None) -> dict[Recipe, float]:
    """Refuses a ladder that cannot run as it is planned, before anything of it is written, and measures what it costs.

    Args:
        jobs: the plan.
        data_dir: directory of data sets; None: the default.

    Returns:
        Seconds that a run of each recipe (with the seed 0) that has not ended will take, from a short measurement.

    Raises:
        ValueError: as `refuse_others` and `costs`.
    """
    refuse_others(jobs, data_dir)
    return costs(dict.fromkeys(replace(job.recipe, seed=0) for job in jobs if not job.finished), data_dir)


def refuse_others(jobs: list[Job], data_dir: str | None = None) -> None:
    """Refuses places that hold something else.

    Args:
        jobs: the plan.
        data_dir: directory of data sets; None: the default.

    Raises:
        ValueError: if a place holds a run of another recipe, or of data that have changed since.
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
    """Measures what runs will cost.

    Args:
        recipes: of the runs; those whose steps do the same work are measured once.
        data_dir: directory of data sets; None: the default.
        compile: whether the runs are in compiled code, see `Settings`.

    Returns:
        Seconds of a run of each recipe, on one thread.

    Raises:
        ValueError: if a recipe does not fit the data, the model or the machine.
    """
    from noiseless.run.build import build

    keep_memory()  # as the runs' processes will
    settings = Settings(threads=1, data_dir=data_dir, compile=compile)
    found: dict[Recipe, float] = {}
    measured: dict[Recipe, Measured] = {}
    for recipe in recipes:
        Config(recipe, settings).check()
        kind = alike(recipe)
        if kind not in measured:
            measured[kind] = measure(build(Config(recipe, settings)))
        found[recipe] = seconds(recipe, settings, measured[kind])
    return found


def estimate(jobs: list[Job], costs: dict[Recipe, float], at_once: int) -> float:
    """Seconds until all jobs have ended: their sum over the processes, or the longest one."""
    left = [costs[replace(job.recipe, seed=0)] * _share_left(job) for job in jobs if not job.finished]
    return max([sum(left) / at_once, *left], default=0.0)


def passes_left(jobs: list[Job]) -> float:
    """Passes until all jobs have ended, as far as their records tell."""
    return sum(job.recipe.schedule.steps * job.passes * _share_left(job) for job in jobs if not job.finished)


def _share_left(job: Job) -> float:
    done = job.directory.rows()[-1]["step"] + 1 if job.directory.rows() else 0
    return 1 - done / job.recipe.schedule.steps
