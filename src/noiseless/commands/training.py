"""The commands `train` and `resume`, in one process or as one of the workers of a job."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from noiseless.commands import job
from noiseless.commands.addresses import TrustingRun
from noiseless.commands.arguments import Parsed, parse_config, take, take_all, take_count
from noiseless.commands.console import console, tell_error
from noiseless.commands.interrupt import interruptible
from noiseless.commands.parsing import parse
from noiseless.commands.places import run_place
from noiseless.errors import command, message
from noiseless.exits import DIVERGED, INTERRUPTED, first_worker, in_job
from noiseless.recipes.checks import printable_text
from noiseless.trust import flags, permit

if TYPE_CHECKING:
    from noiseless.files.directory import Row, RunDirectory
    from noiseless.objective.workers import Workers
    from noiseless.recipes.config import Config, Settings
    from noiseless.run.session import Session
    from noiseless.run.trackers import Tracker

REPORT = "report.html"
"""file of a run's report, in its directory"""


def train(arguments: list[str]) -> int:
    """Trains one model."""
    command_line = ["train", *arguments]
    workers, arguments = take_count(arguments, "--workers")
    copy_to, arguments = take(arguments, "--copy-to")
    tags, arguments = take_all(arguments, "--tag")
    for tag in tags:
        printable_text("tag", tag)
    again = "--again" in arguments
    arguments = [argument for argument in arguments if argument != "--again"]
    parsed = parse_config(
        arguments,
        "train [RECIPE] [--form {small,paper}] [--config FILE] [--tag TAG] [--trust CODE] [--workers W] [--again]"
        " [--copy-to DIR]",
        "Train a model, and write a directory with its record, checkpoints and report.\n\n"
        "The default form is small for digits and mnist-5k, and paper for other data. --config FILE is YAML or JSON"
        " like a run's config.json, of which any part may be missing; flags go before it. --tag TAG, which"
        " may be repeated, is listed by noiseless runs. --trust CODE allows a package.module:function that FILE names."
        " --workers W shares the work among"
        " W processes, with the same bits; torchrun may start this command as well. With --again, the command continues"
        " a run that --run-dir holds already. With --copy-to, finished checkpoints, the record and the final parameters"
        " are also copied to DIR, which may be a mount of an object store.",
        data="digits",
    )
    config, name, form = parsed.config, parsed.name, parsed.form
    schedule = config.recipe.schedule
    if schedule.warmup > schedule.steps:
        raise ValueError(
            f"--warmup {schedule.warmup} is longer than the run of --steps {schedule.steps}: give a shorter one"
        )
    config.check()
    if in_job() and not config.settings.run_dir:
        raise ValueError("--run-dir is required in a job, so that all workers find the run")
    _refuse_early(config)
    several = job.needed(workers)
    console.print(f"starting {workers} workers" if several else _intro(parsed))  # before torch is imported
    from noiseless.run import session, tracking

    trackers = tracking.chosen(config.settings) if first_worker() else []
    path = Path(config.settings.run_dir or run_place(config.recipe))
    copy = _target(copy_to, path)
    if several:
        place = [] if config.settings.run_dir else ["--run-dir", str(path)]
        return job.execute(workers, [*take(command_line, "--workers")[1], *place])
    written = ["noiseless", "train", name, "--form", form, *parsed.flags]
    return _as_worker(lambda joined: session.new(config, path, written, joined, again, tags), trackers, copy)


def _refuse_early(config: Config) -> None:
    """Refuses what a look at the disk shows to be wrong, before torch is imported."""
    from noiseless.files.beginning import refuse_other

    init = config.recipe.model.init or ""
    path = Path(init)
    other = init.partition(":")[0] == "pretrained" or "@" in init or path.parent.name == "checkpoints"  # no file
    if init and not other and not path.exists():
        raise ValueError(f"there is no file {path.absolute()}: --init takes a file, a run, or pretrained")
    if config.settings.run_dir:
        refuse_other(Path(config.settings.run_dir), config)


def _intro(parsed: Parsed) -> str:
    """What is trained, with the values that follow from the given flags."""
    words = {"warmup": "a warm-up of {} step{}", "horizon": "a horizon of {} step{}", "lr": "a learning rate of {:g}"}
    follows = [words[flag].format(value, "s" * (value != 1)) for flag, value in parsed.implied.items()]
    follows = [", ".join(follows[:-1]), follows[-1]] if len(follows) > 2 else follows
    of = f", the usual one of {parsed.config.recipe.optimizer.name}" if "lr" in parsed.implied else ""
    file, others = take(parsed.flags, "--config")
    given = [*([f"the values of {file}"] if file else []), *(["the given flags"] if others else [])]
    intro = f"recipe {parsed.name} in its {parsed.form} form" + (f", with {' and '.join(given)}" if given else "")
    return intro + (f", and so with {' and '.join(follows)}{of}" if follows else "")


@dataclass(frozen=True)
class Resume(TrustingRun):
    """Continue a run from its newest checkpoint; the result has the same bits as without the interruption.

    With --workers W, the work is shared among W processes.
    """

    tensorboard: bool = False
    """log to TensorBoard, even if the run was started without it"""
    wandb: str | None = None
    """log to this project of Weights & Biases; needed again for a run that was started with it, or --untracked"""
    untracked: bool = False
    """do not log to the trackers with which the run was started"""
    copy_to: str | None = None
    """also copy finished checkpoints, record and final parameters to this directory; needed again for a run that was
    started with it"""


def resume(arguments: list[str]) -> int:
    """Continues a run."""
    command_line = ["resume", *arguments]
    workers, arguments = take_count(arguments, "--workers")
    args = parse(Resume, arguments, "resume [--workers W]")
    permit(*args.trust)
    from noiseless.files.address import refuse_state
    from noiseless.files.directory import RunDirectory
    from noiseless.files.plaindigest import final_digest

    remedy = "export the state to DIR, and train a new run with --init DIR/model.safetensors"
    refuse_state(args.run, "resume", remedy)
    directory = RunDirectory.open(Path(args.run))
    copy = _target(args.copy_to, directory.path)
    if directory.model.exists():
        if final_digest(directory) is None:
            directory.state()  # raises if the final parameters are not those that the run wrote
        console.print(
            f"{directory.path} has ended; see its result with: {command('evaluate', directory.path, *flags())}"
        )
        if not (directory.path / REPORT).exists():
            _report(directory)  # it was stopped before its report
        if copy:
            from noiseless.files.runcopy import RunCopy

            RunCopy(directory, copy, _warn).update()
        return 0
    several = job.needed(workers)
    if not in_job():
        console.print(f"resuming {directory.path}{f' with {workers} workers' if several else ''}")
    from noiseless.run import session, tracking

    trackers = tracking.chosen(_trackers(directory.config().settings, args)) if first_worker() else []
    if several:
        return job.execute(workers, take(command_line, "--workers")[1])
    return _as_worker(lambda joined: session.existing(directory.path, joined), trackers, copy)


def _target(copy_to: str | None, run: Path) -> Path | None:
    """The directory of the run's copy, which can take it; None if there is to be none."""
    if copy_to is None:
        return None
    from noiseless.files.runcopy import refuse_target

    refuse_target(Path(copy_to), run)
    return Path(copy_to)


def _trackers(settings: Settings, args: Resume) -> Settings:
    """The settings of a run with the trackers changed by the flags of `resume`."""
    if settings.wandb is not None and args.wandb is None and not args.untracked:
        raise ValueError(
            f"the run names the project {settings.wandb} of Weights & Biases, and nothing is sent because a file names"
            f" it: add --wandb {shlex.quote(settings.wandb)} to go on logging there, or --untracked"
        )
    if args.untracked:
        settings = replace(settings, tensorboard=False, wandb=None)
    return replace(
        settings,
        tensorboard=settings.tensorboard or args.tensorboard,
        wandb=settings.wandb if args.wandb is None else args.wandb,
    )


def _as_worker(
    enter: Callable[[Workers], AbstractContextManager[Session]], trackers: Sequence[Tracker], copy: Path | None
) -> int:
    """Runs a session in one process or as one worker of a job; returns the exit code."""
    with job.joined() as workers, ExitStack() as stack:
        with interruptible():  # a download may take hours
            session = stack.enter_context(enter(workers))
        stack.enter_context(_add_remedy(session.directory))
        return _run(session, trackers, copy)


def _run(session: Session, trackers: Sequence[Tracker], copy: Path | None) -> int:
    """Trains from the state in the directory to the end, with progress, and writes the report and the copy."""
    from noiseless.files.runcopy import RunCopy
    from noiseless.report import live
    from noiseless.run.session import in_first
    from noiseless.run.tracking import Tracking
    from noiseless.run.train import Diverged, Interrupted, Progress
    from noiseless.run.train import train as train_to_end

    experiment, directory = session.experiment, session.directory
    recipe, workers = experiment.config.recipe, experiment.workers
    blocks = -(-len(experiment.train) * max(1, recipe.data.copies) // recipe.objective.block)
    chunks = -(-blocks // (experiment.config.settings.chunk or 1))
    note = f", {workers.count} workers" if workers.count > 1 else ""
    if workers.count > chunks:
        note += f" for {blocks} blocks in {chunks} chunks: {workers.count - chunks} of them have nothing to do"
        note += "; a smaller --chunk would give them some" if blocks > chunks else ""
    if session.changed:
        console.print(session.changed, style="yellow")
    console.print(
        f"{recipe.name}: {recipe.model.name} ({len(experiment.space):,} parameters) on {recipe.data.name}"
        f" ({len(experiment.train):,} training images), {recipe.schedule.steps} steps,"
        f" chain: {experiment.transform.name if experiment.transform else 'none'}, run: {directory.path}{note}"
    )
    for note in experiment.notes:
        console.print(note)

    tracked = Tracking(trackers, experiment.config, directory, _warn)
    copied = RunCopy(directory, copy, _warn).update if copy else lambda: None
    try:
        with ExitStack() as stack:
            with interruptible():  # a tracker may wait for the network
                stack.enter_context(in_first(workers, lambda: tracked))
            for line in tracked.where():
                console.print(line)
            shown = stack.enter_context(live.Live(console))

            def on_row(row: Row) -> None:
                shown.advance(recipe.name, recipe.schedule.steps, row)
                tracked.log(row)

            train_to_end(experiment, directory, Progress(on_row, _warn, copied))
            shown.finish(recipe.name)
    except Diverged as error:
        if first_worker():
            tell_error(str(error))
        return DIVERGED
    except Interrupted as interruption:
        console.print(f"{interruption} --copy-to {shlex.quote(str(copy))}" if copy else str(interruption))
        return INTERRUPTED
    if workers.rank == 0:
        _report(directory)
        copied()
    return 0


def _warn(text: str) -> None:
    """Prints a message that something is not as it was meant to be."""
    console.print(text, style="yellow")


def _report(directory: RunDirectory) -> None:
    """Prints the table of a run that has ended, and writes its report."""
    from noiseless.report import page, summary

    if not directory.rows():  # of an import that had no step left
        return
    runs, path = summary.read([directory]), directory.path / REPORT
    console.print(summary.table(summary.by_recipe(runs), str(directory.path)))
    page.write(path, runs, f"Noiseless: {runs[0].recipe.name} on {runs[0].recipe.data.name}")
    console.print(f"report: {path}")


@contextmanager
def _add_remedy(directory: RunDirectory) -> Iterator[None]:
    """Adds the command that continues the run to errors of the system, such as a full disk."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        error.filename = error.filename or str(directory.path)
        name, needed = ("report", []) if directory.model.exists() else ("resume", flags())
        again = command(name, directory.path, *needed)
        raise ValueError(f"{message(error)}. Then continue with: {again}") from error
