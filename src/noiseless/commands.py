"""What each command of the program does with its arguments. Step by step: read, call the rooms below, print."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from noiseless.exits import DIFFERENT, DIVERGED, INTERRUPTED, WORKER_LOST, first_worker
from noiseless.run.config import Config
from noiseless.run.recipes import LADDER, differences, row

if TYPE_CHECKING:
    from noiseless.objective.workers import Workers
    from noiseless.run.directory import Row, RunDirectory
    from noiseless.run.session import Session

console = Console(highlight=False, soft_wrap=True, quiet=not first_worker())


def train(arguments: list[str]) -> int:
    """Trains one model."""
    given = ["train", *arguments]
    workers, arguments = _take_count(arguments, "--workers")
    again = "--again" in arguments
    arguments = [argument for argument in arguments if argument != "--again"]
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "fb-regularized"
    form, arguments = _take(arguments, "--form")
    data, _ = _take(list(arguments), "--data")
    recipe = row(name, form or ("small" if (data or "digits") == "digits" else "paper"))
    config = tyro.cli(
        Config,
        args=arguments,
        default=Config(recipe),
        prog="noiseless train [RECIPE] [--form {small,paper}] [--workers W] [--again]",
        description=f"RECIPE is one of {', '.join(LADDER)}; defaults below are those of {name}. The small form is for"
        " digits, the paper's for other data. --workers W shares the work among W processes, with the same bits;"
        " torchrun may start this command as well. --again goes on where --run-dir holds this run already.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from noiseless.run import session, team

    path = Path(config.settings.run_dir or _free(config))
    if workers > 1 and not team.in_job():
        fixed = [] if config.settings.run_dir else ["--run-dir", str(path)]
        return team.launch(workers, [*_without(given, "--workers"), *fixed])
    return _in_job(lambda team: session.new(config, path, ["noiseless", *given], team, again))


def resume(arguments: list[str]) -> int:
    """Goes on with a run."""
    from noiseless.run import session, team

    given = ["resume", *arguments]
    workers, arguments = _take_count(arguments, "--workers")
    directory = _one_run(arguments, "resume")
    if directory.model.exists():
        console.print(f"{directory.path} has ended; noiseless evaluate {directory.path} shows its result")
        return 0
    if workers > 1 and not team.in_job():
        return team.launch(workers, _without(given, "--workers"))
    return _in_job(lambda team: session.existing(directory.path, team))


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
    path = Path(asked.run_dir or f"runs/reproduce-{_slug(asked.data)}")
    failed: list[str] = []

    from noiseless.report import live, page, summary
    from noiseless.run import ladder

    jobs = ladder.plan(recipes, seeds, path)
    at_once = asked.jobs or len(os.sched_getaffinity(0))
    kept = sum(job.finished for job in jobs)
    console.print(
        f"{len(jobs)} runs on {asked.data} with {asked.model}, {at_once} at once on one thread each"
        + (f"; {kept} are kept from {path}" if kept else "")
    )
    try:
        with live.Live(console) as shown:
            shown.plan(sum(job.recipe.steps * job.passes for job in jobs if not job.finished))

            def told(job: ladder.Job, found: Row) -> None:
                shown.advance(job.title, job.recipe.steps, found)
                shown.spend(job.passes)

            def ended(job: ladder.Job, problem: str | None) -> None:
                if problem:
                    failed.append(job.title)
                    shown.end(job.title, f"[bold red]{job.title}:[/] {escape(problem)}")
                else:
                    (run,) = summary.read([job.directory])
                    shown.end(job.title, f"{job.title:24} {summary.line(run)}")

            ladder.execute(jobs, at_once, told, ended)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the checkpoints")
        return 130
    runs = summary.read(job.directory for job in jobs if job.directory.rows())
    console.print(summary.table(summary.by_recipe(runs), f"the ladder on {asked.data} with {asked.model}"))
    page.write(path / "report.html", runs, f"Noiseless: the paper's ladder on {asked.data}")
    console.print(f"report: {path / 'report.html'}")
    return 3 if failed else 0


def evaluate(arguments: list[str]) -> int:
    """Loss and accuracy of a run's model."""
    from noiseless.run.build import rebuild
    from noiseless.run.evaluate import score

    directory = _one_run(arguments, "evaluate")
    experiment = rebuild(directory)
    experiment.model.load_state_dict(directory.state())
    for part, images in (("train", experiment.train), ("test", experiment.test)):
        found = score(experiment.model, replace(images, augment="none"))
        console.print(f"{part:5}  loss {found.loss:.6f}  accuracy {found.accuracy:.4%}  ({len(images)} images)")
    if not directory.model.exists():
        console.print("the run has not ended: this is its newest checkpoint")
    return 0


@dataclass(frozen=True)
class Report:
    """Write one HTML page with table and curves of runs; runs of one recipe become mean and band."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """directories of runs"""
    output: Annotated[str | None, tyro.conf.arg(aliases=["-o"])] = None
    """path of the page; none: report.html in the first run"""


def report(arguments: list[str]) -> int:
    """Writes the report of runs."""
    asked = tyro.cli(Report, args=arguments, prog="noiseless report")
    if not asked.runs:
        raise ValueError("give at least one run: noiseless report RUN [RUN ...]")

    from noiseless.report import page, summary
    from noiseless.run.directory import RunDirectory

    runs = summary.read(RunDirectory.open(Path(run)) for run in asked.runs)
    console.print(summary.table(summary.by_recipe(runs), "runs"))
    path = Path(asked.output) if asked.output else runs[0].directory.path / "report.html"
    page.write(path, runs, "Noiseless: report")
    console.print(f"report: {path}")
    return 0


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


def digest(arguments: list[str]) -> int:
    """SHA-256 over a run's final parameters and buffers."""
    from noiseless.run import checkpoint

    directory = _one_run(arguments, "digest")
    state = directory.state()
    if not directory.model.exists():
        Console(stderr=True).print("the run has not ended: this is its newest checkpoint")
    console.print(checkpoint.digest(state))
    return 0


def verify(arguments: list[str]) -> int:
    """Compares the bits of a run's gradient."""
    part, arguments = _take(arguments, "--part")  # in a job that verify has started: where its first worker tells
    directory = _one_run(arguments, "verify")

    from noiseless.run import verify as verification

    if part is not None:
        verification.part(directory, Path(part))
        return 0
    findings, noises = verification.verify(directory)
    equal = len({finding.digest for finding in findings}) == 1
    table = Table(title="the gradient of the newest state, computed in several ways")
    for heading in ("way", "digest of gradient, loss, hits and statistics", ""):
        table.add_column(heading)
    for finding in findings:
        same = finding.digest == findings[0].digest
        table.add_row(finding.way, finding.digest, "equal" if same else "[bold red]different[/]")
    console.print(table)
    beside = Table(title="what plain float32 sums of the same block gradients differ by")
    for heading in ("summed", "largest difference", "relative, in L2"):
        beside.add_column(heading)
    for noise in noises:
        beside.add_row(noise.way, f"{noise.largest:.2e}", f"{noise.relative:.2e}")
    console.print(beside)
    console.print("all equal" if equal else "[bold red]not equal[/]")
    return 0 if equal else DIFFERENT


@dataclass(frozen=True)
class OneRun:
    """The directory of a run."""

    run: tyro.conf.Positional[str]
    """directory of the run, as noiseless train has printed it"""


def _one_run(arguments: list[str], command: str) -> RunDirectory:
    asked = tyro.cli(OneRun, args=arguments, prog=f"noiseless {command}")
    from noiseless.run.directory import RunDirectory

    return RunDirectory.open(Path(asked.run))


def _in_job(enter: Callable[[Workers], AbstractContextManager[Session]]) -> int:
    """Runs a session as one of the workers of its job, or alone; gives the exit code."""
    from noiseless.objective.workers import WorkerLostError
    from noiseless.run import team

    asked_to_stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda received, frame: asked_to_stop.append(received))
    workers = team.join(lambda: bool(asked_to_stop))
    try:
        with enter(workers) as session:
            return _run(session)
    except WorkerLostError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(WORKER_LOST)  # at once, past `told`: torchrun is to start the workers anew


def _run(session: Session) -> int:
    """Trains from where the directory stands, with progress; writes the report."""
    from noiseless.report import live, page, summary
    from noiseless.run.train import Diverged, Interrupted, Progress
    from noiseless.run.train import train as train_to_end

    experiment, directory = session.experiment, session.directory
    recipe, workers = experiment.config.recipe, experiment.workers
    blocks = -(-len(experiment.train) // recipe.block)
    note = f", {workers.count} workers" if workers.count > 1 else ""
    if workers.count > blocks:
        note += f" for {blocks} blocks: {workers.count - blocks} of them have nothing to do"
    console.print(
        f"{recipe.name}: {recipe.model} ({len(experiment.space):,} parameters) on {recipe.data}"
        f" ({len(experiment.train):,} training images), {recipe.steps} steps,"
        f" chain: {experiment.transform.name if experiment.transform else 'none'}, run: {directory.path}{note}"
    )
    try:
        with live.Live(console) as shown:
            progress = Progress(
                on_row=lambda row: shown.advance(recipe.name, recipe.steps, row),
                on_message=lambda text: console.print(f"[yellow]{escape(text)}[/]"),
            )
            train_to_end(experiment, directory, progress)
    except Diverged as error:
        Console(stderr=True, soft_wrap=True, highlight=False, quiet=not first_worker()).print(
            f"[bold red]error:[/] {escape(str(error))}"
        )
        return DIVERGED
    except Interrupted as stopped:
        console.print(str(stopped))
        return INTERRUPTED
    if workers.rank == 0:
        runs = summary.read([directory])
        console.print(summary.table(summary.by_recipe(runs), str(directory.path)))
        page.write(directory.path / "report.html", runs, f"Noiseless: {recipe.name} on {recipe.data}")
        console.print(f"report: {directory.path / 'report.html'}")
    return 0


def _take_count(arguments: list[str], flag: str) -> tuple[int, list[str]]:
    text, arguments = _take(arguments, flag)
    if text is not None and (not text.isdecimal() or int(text) < 1):
        raise ValueError(f"{flag} must be a whole number of at least 1, not {text!r}")
    return int(text or 1), arguments


def _without(arguments: list[str], flag: str) -> list[str]:
    return _take(arguments, flag)[1]


def _free(config: Config) -> Path:
    """The first of runs/NAME, runs/NAME-2, ... that does not exist."""
    recipe = config.recipe
    name = f"runs/{recipe.name}-{_slug(recipe.data)}-{recipe.model}-seed{recipe.seed}"
    number = 1
    while (path := Path(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path


def _slug(data: str) -> str:
    return Path(data.partition(":")[2] or data).stem


def _take(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag that decides the defaults of others, and the arguments without it."""
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1], arguments[:position] + arguments[position + 2 :]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2], arguments[:position] + arguments[position + 1 :]
    return None, arguments
