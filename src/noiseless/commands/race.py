"""The command `race`: accuracy of optimizers with equal budgets of passes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.table import Table

from noiseless.commands import execution
from noiseless.commands.arguments import whole
from noiseless.commands.console import console, duration
from noiseless.commands.execution import MOST_JOBS
from noiseless.commands.models import parameters
from noiseless.commands.parsing import parse
from noiseless.commands.places import race_place
from noiseless.errors import shown, spelled
from noiseless.exits import INTERRUPTED
from noiseless.recipes.checks import MOST_BUDGET, at_least, known_or_code, positive
from noiseless.recipes.config import Settings
from noiseless.recipes.parts.data import MOST_PIXELS
from noiseless.recipes.parts.objective import LOSSES
from noiseless.run import prepared
from noiseless.system import cores
from noiseless.trust import permit_functions

if TYPE_CHECKING:
    from noiseless.report.price import Result
    from noiseless.study.race import Entry, Heat
    from noiseless.study.race import Race as Running
    from noiseless.study.reproduce import Job


@dataclass(frozen=True)
class Race:
    """Compare the test accuracy of optimizers that have equal budgets of passes over the training images.

    First each contender is tuned, all with the same number of runs, on a part of the training images. Then it runs with
    its best setting on all of them, and the test images are evaluated once, after the last step. The table has a note
    where the chosen learning rate, weight decay or block size is the smallest or largest that was tried. Finished runs
    are kept, so the same command continues after an interruption.
    """

    data: str = "digits"
    """data set, see noiseless data list"""
    pixels: int | None = None
    """size to which images are resized and cropped; none: unchanged"""
    model: str | None = None
    """model, see noiseless models; none: resnet8 in the small form, resnet18 in the paper form"""
    form: Literal["small", "paper"] | None = None
    """paper: as in the paper; small: scaled down; none: small for digits and mnist-5k, paper for other data"""
    loss: str = "cross-entropy"
    """cross-entropy, incorrect, or a function of yours, package.module:name, which replaces aggregated's smoothing"""
    augment: Literal["fresh", "none"] = "fresh"
    """fresh: random crops and mirror images, drawn anew at each step; none: no augmentation"""
    budgets: str = "15,30,60,120,300"
    """budgets in passes over the training images, separated by commas"""
    contenders: str = ""
    """of sgd, adamw, muon, rows of the paper, fb-adamw, fb-muon, aggregated, with commas; none: all that differ;
    package.module:Class@RATE is an optimizer of yours, and fb-package.module:Class@RATE its full-batch steps"""
    seeds: int = 5
    """number of seeds of each contender, from 0 on"""
    rates: int = 5
    """number of learning rates, a factor 2 apart, that are tried with each of three block sizes"""
    tuning_seeds: int = 2
    """number of tuning runs for each setting, with seeds from 1000 on and another validation part for each seed"""
    tune_at: int | None = None
    """budget at which settings are tuned for all budgets; none: tuned at each budget"""
    choices: str | None = None
    """choices.json of an earlier race, whose settings are used; only contenders that are not in it are tuned"""
    validation: float = 0.25
    """share of the training images that tuning runs leave out and are evaluated on"""
    jobs: int | None = None
    """number of parallel runs, each on one thread; none: one for each core"""
    run_dir: str | None = None
    """directory of the race; none: runs/race-DATA, with --pixels and --augment none in its name"""
    data_dir: str | None = None
    """directory of data sets; none: the environment variable NOISELESS_DATA, or ~/.cache/noiseless/data"""
    plan_only: bool = False
    """print the planned runs and their cost, and run nothing"""


def race(arguments: list[str]) -> int:
    """Runs a race: tuning, then the runs with the chosen settings."""
    args = parse(Race, arguments, "race")
    args = replace(args, loss=spelled(args.loss, LOSSES), model=args.model and spelled(args.model, parameters()))
    known_or_code("loss", args.loss, LOSSES)
    permit_functions(args.data, args.model or "", args.loss)
    at_least("jobs", args.jobs, 1, MOST_JOBS)
    positive("pixels", args.pixels, MOST_PIXELS)
    budgets = _numbers("--budgets", args.budgets)
    running = _race(args, budgets)
    path = running.directory
    execution.refuse_place(path)
    tuning = [job for entry in running.entries() for job in _jobs(entry)]
    at_once = args.jobs or cores()
    _print_plan(running, tuning, at_once, args.data_dir)
    if args.plan_only:
        return 0
    # no evaluation before the last step, at any budget
    last = max(*budgets, args.tune_at or 0)
    settings = Settings(data_dir=args.data_dir, threads=1, evaluate_every=last, keep=1)
    stopped, _ = execution.execute(tuning, at_once, settings, lambda job: None, "race")
    if stopped:
        return _stopped()
    return _run(running, args, shlex.join(["noiseless", "race", *arguments]), at_once, settings)


def _run(running: Running, args: Race, command: str, at_once: int, settings: Settings) -> int:
    """Chooses settings, runs the race with them, and writes its table and figures."""
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
    reproduce.refuse_others(jobs, args.data_dir)

    def line(job: Job) -> str:
        last = job.directory.rows()[-1]
        return f"{job.title:28} test accuracy {last['test_accuracy']:.2%}  test loss {last['test_loss']:.4f}"

    stopped, _ = execution.execute(jobs, at_once, settings, line, "race")
    results = [_result(heat) for heat in heats]
    title = f"Race on {_course(args)}"
    console.print(price.table(results, title))
    tables = price.write(running.directory, results, title, _protocol(args), command)
    figures = drawing.write(running.directory, price.figures(results, _course(args)), "passes")
    shown = [path for path in figures if path.suffix == ".png"]
    console.print(f"table: {' and '.join(map(str, tables))}\nfigures: {', '.join(map(str, shown))}")
    return _stopped() if stopped else 0


def _stopped() -> int:
    console.print("stopped; run the same command again to continue from the checkpoints")
    return INTERRUPTED


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    """Parses whole numbers separated by commas; sorted, without repetitions."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and part.strip("0") for part in parts):
        raise ValueError(f"{flag} must be whole numbers of at least 1, separated by commas, not {shown(text)!r}")
    return tuple(sorted({whole(flag, part, MOST_BUDGET) for part in parts}))


def _race(args: Race, budgets: tuple[int, ...]) -> Running:
    """Builds the race that the flags describe."""
    from noiseless.data.catalogue import full_name

    data = full_name(args.data, args.pixels)
    names = [name.strip() for name in args.contenders.split(",") if name.strip()]
    if args.contenders and not names:
        raise ValueError(f"--contenders {args.contenders!r} names none: give names separated by commas, as sgd,adamw")
    from noiseless.study import contenders

    chosen = contenders.select(names)
    permit_functions(*map(contenders.code, names))
    if not args.plan_only:
        prepared.start()
    console.print(f"planning a race on {_course(args)}")
    from noiseless.data import extent, home
    from noiseless.optim import optimizer_entry
    from noiseless.study import earlier
    from noiseless.study.race import Protocol
    from noiseless.study.race import Race as Running

    course = contenders.Course(
        data, extent(data, home(args.data_dir), args.pixels), args.pixels, args.model, args.form,
        args.augment == "fresh", args.loss,
    )  # fmt: skip
    for contender in chosen:
        optimizer_entry(contender.recipe.optimizer.name)  # imports the user's, and refuses what is none
    protocol = Protocol(budgets, args.seeds, args.rates, args.tuning_seeds, args.validation, args.tune_at)
    place = args.run_dir or race_place(data, args.pixels, args.augment == "fresh")
    prior_choices = earlier.read(Path(args.choices)) if args.choices else None
    return Running(course, protocol, chosen, Path(place), prior_choices)


def _course(args: Race) -> str:
    pixels = f" at {args.pixels} pixels" if args.pixels else ""
    augmentation = "fresh augmentation" if args.augment == "fresh" else "without augmentation"
    return f"{args.data}{pixels}, {augmentation}" + (f", loss {args.loss}" if args.loss != Race.loss else "")


def _protocol(args: Race) -> str:
    """Describes the protocol, for the file of the table."""
    runs = (
        f"The runs below have the seeds 0 to {args.seeds - 1} and all training images; the test images are evaluated"
        " once, after the last step. aggregated has one setting for all data sets, and is not tuned."
    )
    if args.choices:
        runs = f"Contenders of an earlier race have the settings chosen there ({args.choices}). {runs}"
    where = f"at {args.tune_at} passes, for all budgets" if args.tune_at else "separately for each budget"
    return (
        f"Each tuned contender tried {args.rates} learning rates (a factor 2 apart) with each of three block sizes,"
        " and three weight decays spread over them (the paper's rows: that of the paper), in"
        f" {args.tuning_seeds} runs for each setting with seeds from 1000 on, {where}. The setting with the best mean"
        f" accuracy on {args.validation:.0%} of the training images, left out of these runs, was chosen. {runs}"
    )


def _result(heat: Heat) -> Result:
    """The finished runs of a heat, for the table."""
    from noiseless.report import summary
    from noiseless.report.price import Result
    from noiseless.study.race import edges, setting

    contender = heat.choice.entry.contender
    ended = summary.read(job.directory for job in heat.jobs if job.finished)
    at_edge = edges(heat.choice.at_edge)
    return Result(
        contender.name, contender.group, heat.budget, setting(heat.jobs[0].recipe), at_edge, ended, len(heat.jobs)
    )


def _print_plan(running: Running, tuning: list[Job], at_once: int, data_dir: str | None) -> None:
    """Checks the planned runs and prints them with their cost, estimated with the middle setting of each grid."""
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
    runs_at_once = f"{at_once} run{'s' * (at_once > 1)} in parallel on one thread each"
    table = Table(title=f"plan: budgets of {at} passes, {runs_at_once}")
    for heading in ("contender", "group", "tuning left", "runs left", "longest run"):
        table.add_column(heading, justify="left" if heading in ("contender", "group") else "right", no_wrap=True)
    for contender in running.contenders:
        tuning_jobs = [job for entry in running.entries() if entry.contender is contender for job in _jobs(entry)]
        runs = [job for budget in running.protocol.budgets for job in planned[contender.name, budget]]
        waiting = [costs[replace(job.recipe, seed=0)] for job in [*tuning_jobs, *runs] if not job.finished]
        longest = duration(max(waiting)) if waiting else "-"
        table.add_row(contender.name, contender.group, _left(tuning_jobs), _left(runs), longest)
    console.print(table)
    total = reproduce.estimate(tuning, costs, at_once) + reproduce.estimate(left, costs, at_once)
    passes = reproduce.passes_left(tuning) + reproduce.passes_left(left)
    console.print(f"{passes:g} passes to go, about {duration(total)} from a short measurement on this machine")


def _jobs(entry: Entry) -> list[Job]:
    return [job for trial in entry.trials for job in trial.jobs]


def _left(jobs: list[Job]) -> str:
    return f"{sum(not job.finished for job in jobs)} of {len(jobs)}" if jobs else "-"
