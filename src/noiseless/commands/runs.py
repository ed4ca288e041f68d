"""The commands about single runs: make one, go on with it, read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console

from noiseless.commands.console import console, tell_error
from noiseless.commands.interrupt import noted
from noiseless.commands.places import run_place
from noiseless.errors import message
from noiseless.run.config import Config
from noiseless.run.recipes import LADDER, row

if TYPE_CHECKING:
    from noiseless.run.build import Experiment
    from noiseless.run.directory import RunDirectory


def train(arguments: list[str]) -> int:
    """Trains one model."""
    name, arguments = _take_recipe(arguments)
    form, arguments = _take(arguments, "--form")
    data, _ = _take(list(arguments), "--data")
    form = form or ("small" if (data or "digits") == "digits" else "paper")
    config = tyro.cli(
        Config,
        args=arguments,
        default=Config(row(name, form)),
        prog="noiseless train [RECIPE] [--form {small,paper}]",
        description=f"RECIPE is one of {', '.join(LADDER)}; defaults below are those of {name}. The small form is for"
        " digits, the paper's for other data.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    from noiseless.run.build import build
    from noiseless.run.directory import RunDirectory, environment

    path = Path(config.settings.run_dir or run_place(config.recipe))
    experiment = build(replace(config, settings=replace(config.settings, run_dir=str(path))))
    directory = RunDirectory(path)
    command = ["noiseless", "train", name, "--form", form, *arguments]
    with directory.created(experiment.config, environment(experiment.config, experiment.data_sha256, command)):
        console.print(f"recipe {name} in its {form} form, with the flags that were given")
        with _telling_how_to_go_on(directory):
            return _run(experiment, directory)


def resume(arguments: list[str]) -> int:
    """Goes on with a run."""
    from noiseless.run.build import rebuild

    directory = _one_run(arguments, "resume")
    with directory.locked():
        if directory.model.exists():
            console.print(f"{directory.path} has ended; noiseless evaluate {directory.path} shows its result")
            return 0
        with _telling_how_to_go_on(directory):
            return _run(rebuild(directory), directory)


def evaluate(arguments: list[str]) -> int:
    """Loss and accuracy of a run's model."""
    from noiseless.run.build import rebuild
    from noiseless.run.evaluate import score
    from noiseless.run.parameters import fill

    directory = _one_run(arguments, "evaluate")
    experiment = rebuild(directory)
    fill(experiment.model, directory.state(), directory.model if directory.model.exists() else directory.checkpoints)
    for part, images in (("train", experiment.train), ("test", experiment.test)):
        found = score(experiment.model, replace(images, augment="none"))
        console.print(f"{part:5}  loss {found.loss:.6f}  accuracy {found.accuracy:.4%}  ({len(images)} images)")
    if not directory.model.exists():
        console.print("the run has not ended: this is its newest checkpoint")
    return 0


@dataclass(frozen=True)
class Report:
    """Write one HTML page with table and curves of runs; runs of one recipe become mean and band."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
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


def digest(arguments: list[str]) -> int:
    """SHA-256 over a run's final parameters and buffers."""
    from noiseless.run import checkpoint

    directory = _one_run(arguments, "digest")
    state = directory.state()
    if not directory.model.exists():
        Console(stderr=True).print("the run has not ended: this is its newest checkpoint")
    console.print(checkpoint.digest(state))
    return 0


@dataclass(frozen=True)
class OneRun:
    """The directory of a run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """directory of the run, as noiseless train has printed it"""


def _one_run(arguments: list[str], command: str) -> RunDirectory:
    asked = tyro.cli(OneRun, args=arguments, prog=f"noiseless {command}")
    from noiseless.run.directory import RunDirectory

    return RunDirectory.open(Path(asked.run))


def _run(experiment: Experiment, directory: RunDirectory) -> int:
    """Trains from where the directory stands, with progress; writes the report."""
    from noiseless.report import live, page, summary
    from noiseless.run.train import Diverged, Interrupted, Progress
    from noiseless.run.train import train as train_to_end

    recipe = experiment.config.recipe
    console.print(
        f"{recipe.name}: {recipe.model} ({len(experiment.space):,} parameters) on {recipe.data}"
        f" ({len(experiment.train):,} training images), {recipe.steps} steps,"
        f" chain: {experiment.transform.name if experiment.transform else 'none'}, run: {directory.path}"
    )
    try:
        with live.Live(console) as shown, noted() as asked_to_stop:
            progress = Progress(
                on_row=lambda row: shown.advance(recipe.name, recipe.steps, row),
                stop=lambda: bool(asked_to_stop),
                on_message=lambda text: console.print(text, style="yellow"),
            )
            train_to_end(experiment, directory, progress)
    except Diverged as error:
        tell_error(str(error))
        return 3
    except Interrupted as stopped:
        console.print(str(stopped))
        return 130
    runs = summary.read([directory])
    console.print(summary.table(summary.by_recipe(runs), str(directory.path)))
    page.write(directory.path / "report.html", runs, f"Noiseless: {recipe.name} on {recipe.data}")
    console.print(f"report: {directory.path / 'report.html'}")
    return 0


@contextmanager
def _telling_how_to_go_on(directory: RunDirectory) -> Iterator[None]:
    """A full disk and its like end a run with what could not be written, and the command that goes on."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        error.filename = error.filename or str(directory.path)
        command = "report" if directory.model.exists() else "resume"
        raise ValueError(f"{message(error)}. Then go on with: noiseless {command} {directory.path}") from error


def _take_recipe(arguments: list[str]) -> tuple[str, list[str]]:
    """The recipe's name, which stands before the flags, and the arguments without it."""
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    for before, argument in pairwise(arguments):
        if argument in LADDER and before != "--name":
            rest = [each for each in arguments if each != argument]
            raise ValueError(f"the recipe comes before the flags: noiseless train {argument} {' '.join(rest)}")
    return "fb-regularized", arguments


def _take(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag that decides the defaults of others, and the arguments without it."""
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1], arguments[:position] + arguments[position + 2 :]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2], arguments[:position] + arguments[position + 1 :]
    return None, arguments
