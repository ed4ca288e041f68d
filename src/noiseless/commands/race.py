"""The command that lets optimizers race: what accuracy costs, with the full batch and with mini-batches."""

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
from noiseless.commands.places import race_place
from noiseless.exits import INTERRUPTED
from noiseless.recipes.config import Settings

if TYPE_CHECKING:
    from noiseless.report.price import Result
    from noiseless.study.race import Entry, Heat
    from noiseless.study.race import Race as Running
    from noiseless.study.reproduce import Job


@dataclass(frozen=True)
class Race:
    """Accuracy against passes: mini-batch contenders, the paper's rows, others with the full batch, and aggregated.

    Each tuned contender has the same number of tuning runs, on a part of the training images; the table names each axis
    of a grid (rate, decay, block) on which the choice is the smallest or largest value. The test images are evaluated
    once, after the last step of the runs that count.
    """

    data: str = "digits"
    """data set, see noiseless data list"""
    pixels: int | None = None
    """images are resized and cropped to this size; none: as they are"""
    model: str | None = None
    """model, see noiseless train --help; none: the form's"""
    form: Literal["small", "paper"] | None = None
    """small: resnet8, no mirror images, small blocks; paper: resnet18; none: small for digits and mnist-5k"""
    augment: Literal["fresh", "none"] = "fresh"
    """fresh augmentations at each step, or none"""
    budgets: str = "15,30,60,120,300"
    """passes over the training images"""
    contenders: str = ""
    """who races: sgd, adamw, muon, rows of the paper, fb-adamw, fb-muon, aggregated; none: all that differ"""
    seeds: int = 5
    """seeds of each contender, from 0 on"""
    rates: int = 5
    """learning rates that each contender tries with each of three block sizes, a factor 2 apart"""
    tuning_seeds: int = 2
    """seeds of each setting that is tried, from 1000 on, each with another validation part"""
    tune_at: int | None = None
    """budget at which settings are chosen for all budgets; none: for each by itself"""
    choices: str | None = None
    """choices.json of an earlier race: its settings are taken, and only contenders that it had not are tuned"""
    validation: float = 0.25
    """share of the training images that tuning runs leave out, and that choose"""
    jobs: int | None = None
    """runs at once, each on one thread; none: one for each core"""
    run_dir: str | None = None
    """directory of the race; none: runs/race-DATA, with what is not usual behind it"""
    data_dir: str | None = None
    """directory of downloaded and packed data sets; none: that of NOISELESS_DATA, or ~/.cache/noiseless/data"""
    plan_only: bool = False
    """print the plan with its cost, and run nothing"""


def race(arguments: list[str]) -> int:
    """Runs a race to its end."""
    asked = tyro.cli(Race, args=arguments, prog="noiseless race")
    if asked.jobs is not None and asked.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {asked.jobs}")
    budgets = _numbers("--budgets", asked.budgets)
    if not asked.plan_only:
        execution.import_beside()
    running = _race(asked, budgets)
    path = running.directory
    execution.refuse_place(path)
    tuning = [job for entry in running.entries() for job in _jobs(entry)]
    at_once = asked.jobs or len(os.sched_getaffinity(0))
    _tell_plan(running, tuning, at_once, asked.data_dir)
    if asked.plan_only:
        return 0
    # evaluated after the last step only, whatever the budget
    last = max(*budgets, asked.tune_at or 0)
    settings = Settings(data_dir=asked.data_dir, threads=1, evaluate_every=last, keep=1)
    stopped, _ = execution.execute(tuning, at_once, settings, lambda job: None, "race")
    if stopped:
        return _stopped()
    return _run(running, asked, shlex.join(["noiseless", "race", *arguments]), at_once, settings)


def _run(running: Running, asked: Race, command: str, at_once: int, settings: Settings) -> int:
    """Chooses, runs the race with what was chosen, and writes its table and figures."""
    from noiseless.files.atomic import write_json
    from noiseless.report import drawing, price
    from noiseless.study import reproduce
    from noiseless.study.race import edges, setting

    choices = [entry.choose() for entry in running.entries()]
    tuned = [choice for choice in choices if choice.entry.tuned]
    running.directory.mkdir(parents=True, exist_ok=True)
    write_json(running.directory / "choices.json", [choice.as_json() for choice in tuned])
    for choice in tuned:
        edge = f" (edge of its grid: {edges(choice.at_edge)})" if choice.at_edge else ""
        name, budget = choice.entry.contender.name, choice.entry.budget
        console.print(f"{name:16} {budget:5} passes: {setting(choice.recipe)}{edge}")
    heats = running.heats(choices)
    jobs = [job for heat in heats for job in heat.jobs]
    reproduce.refuse_others(jobs, asked.data_dir)

    def line(job: Job) -> str:
        last = job.directory.rows()[-1]
        return f"{job.title:28} test accuracy {last['test_accuracy']:.2%}  test loss {last['test_loss']:.4f}"

    stopped, _ = execution.execute(jobs, at_once, settings, line, "race")
    results = [_result(heat) for heat in heats]
    title = f"Race on {_course(asked)}"
    console.print(price.table(results, title))
    tables = price.write(running.directory, results, title, _protocol(asked), command)
    figures = drawing.write(running.directory, price.figures(results, _course(asked)), "passes")
    shown = [path for path in figures if path.suffix == ".png"]
    console.print(f"table: {' and '.join(map(str, tables))}\nfigures: {', '.join(map(str, shown))}")
    return _stopped() if stopped else 0


def _stopped() -> int:
    console.print("stopped; the same command goes on from the checkpoints")
    return INTERRUPTED


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"{flag} are whole numbers of at least 1, separated by commas, not {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def _race(asked: Race, budgets: tuple[int, ...]) -> Running:
    from noiseless.data import extent, home
    from noiseless.data.datasets import full_name
    from noiseless.study import contenders, earlier
    from noiseless.study.race import Protocol
    from noiseless.study.race import Race as Running

    names = [name.strip() for name in asked.contenders.split(",") if name.strip()]
    data = full_name(asked.data, asked.pixels)
    course = contenders.Course(
        data, extent(data, home(asked.data_dir), asked.pixels), asked.pixels, asked.model, asked.form,
        asked.augment == "fresh",
    )  # fmt: skip
    protocol = Protocol(budgets, asked.seeds, asked.rates, asked.tuning_seeds, asked.validation, asked.tune_at)
    place = asked.run_dir or race_place(data, asked.pixels, asked.augment == "fresh")
    known = earlier.read(Path(asked.choices)) if asked.choices else None
    return Running(course, protocol, contenders.select(names), Path(place), known)


def _course(asked: Race) -> str:
    pixels = f" at {asked.pixels} pixels" if asked.pixels else ""
    return f"{asked.data}{pixels}, {'fresh augmentation' if asked.augment == 'fresh' else 'without augmentation'}"


def _protocol(asked: Race) -> str:
    """What was done, as a sentence for the table's file."""
    runs = (
        f"The runs below have the seeds 0 to {asked.seeds - 1}, all training images, and the test images once, after"
        " the last step. aggregated is one setting for all sets, and is not tuned."
    )
    if asked.choices:
        runs = f"Contenders of an earlier race have the settings that it has chosen ({asked.choices}). {runs}"
    where = f"at {asked.tune_at} passes, for all budgets" if asked.tune_at else "for each budget by itself"
    return (
        f"Each tuned contender tried {asked.rates} learning rates (a factor 2 apart) with each of three block sizes,"
        f" three weight decays among them (the paper's rows: the paper's one), in {asked.tuning_seeds} runs a setting"
        f" with seeds from 1000 on, {where}; the mean accuracy on"
        f" {asked.validation:.0%} of the training images, left out of these runs, has chosen. {runs}"
    )


def _result(heat: Heat) -> Result:
    """What has ended of a heat."""
    from noiseless.report import summary
    from noiseless.report.price import Result
    from noiseless.study.race import edges, setting

    contender = heat.choice.entry.contender
    ended = summary.read(job.directory for job in heat.jobs if job.finished)
    at_edge = edges(heat.choice.at_edge)
    return Result(
        contender.name, contender.group, heat.budget, setting(heat.jobs[0].recipe), at_edge, ended, len(heat.jobs)
    )


def _tell_plan(running: Running, tuning: list[Job], at_once: int, data_dir: str | None) -> None:
    """Refuses what cannot run; prints what will, and what it costs, with the middle of its grid for a contender."""
    from noiseless.study import reproduce

    costs = reproduce.check(tuning, data_dir)
    planned = {
        (contender.name, budget): running.planned(contender, budget)
        for contender in running.contenders
        for budget in running.protocol.budgets
    }
    left = [job for jobs in planned.values() for job in jobs if not job.finished]
    costs |= reproduce.costs(dict.fromkeys(replace(job.recipe, seed=0) for job in left), data_dir)
    at = ", ".join(map(str, running.protocol.budgets))
    made = Table(title=f"plan: budgets of {at} passes, {at_once} runs at once on one thread each")
    for heading in ("contender", "group", "tuning left", "runs left", "longest run"):
        made.add_column(heading, justify="left" if heading in ("contender", "group") else "right", no_wrap=True)
    for contender in running.contenders:
        own = [job for entry in running.entries() if entry.contender is contender for job in _jobs(entry)]
        runs = [job for budget in running.protocol.budgets for job in planned[contender.name, budget]]
        waiting = [costs[replace(job.recipe, seed=0)] for job in [*own, *runs] if not job.finished]
        made.add_row(
            contender.name, contender.group, _left(own), _left(runs), duration(max(waiting)) if waiting else "-"
        )
    console.print(made)
    whole = reproduce.estimate(tuning, costs, at_once) + reproduce.estimate(left, costs, at_once)
    passes = reproduce.passes_left(tuning) + reproduce.passes_left(left)
    console.print(f"{passes:g} passes to go, about {duration(whole)} from a short measurement on this machine")


def _jobs(entry: Entry) -> list[Job]:
    return [job for trial in entry.trials for job in trial.jobs]


def _left(jobs: list[Job]) -> str:
    return f"{sum(not job.finished for job in jobs)} of {len(jobs)}" if jobs else "-"
