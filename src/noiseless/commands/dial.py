"""The command `dial`: one recipe with each source of gradient noise switched on alone."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from noiseless.commands import execution
from noiseless.commands.arguments import MOST_WORKERS, Parsed, parse_config, take, take_count, take_recipe, whole
from noiseless.commands.console import console, duration
from noiseless.commands.execution import MOST_JOBS
from noiseless.commands.places import slug
from noiseless.exits import INTERRUPTED
from noiseless.recipes.checks import at_least
from noiseless.run import prepared
from noiseless.system import cores

if TYPE_CHECKING:
    from noiseless.data import Extent
    from noiseless.recipes.recipe import Recipe
    from noiseless.report.dial import Result
    from noiseless.study.dial import Arm
    from noiseless.study.reproduce import Job

SEEDS = 3
"""default number of seeds of each arm"""
DRAWS = 8
"""default number of draws from which noise is measured"""
LEAST_DRAWS = 3
"""smallest number of draws that gives an error"""
COPIES = 4
"""default number of augmented copies in the control without noise"""
MOST_COPIES = 1000
"""largest number of copies"""


@dataclass(frozen=True)
class _Flags:
    """The command's flags besides those of the recipe."""

    seeds: int
    batches: tuple[int, ...]
    draws: int
    copies: int
    jobs: int
    plan_only: bool


def dial(arguments: list[str]) -> int:
    """Runs the arms of a dial, measures their noise, and writes table and figure."""
    command = shlex.join(["noiseless", "dial", *arguments])
    flags, arguments = _take_flags(arguments)
    take_recipe(arguments, "dial")  # raises if the recipe comes after flags
    parsed = parse_config(
        arguments if arguments and not arguments[0].startswith("-") else ["fb", *arguments],
        "dial [RECIPE] [--form {small,paper}] [--seeds N] [--batches B,B] [--draws M] [--copies K] [--jobs J]"
        " [--plan-only]",
        "Run one recipe with the full batch and no noise, and with each source of noise switched on alone: sampling,"
        " norm blocks that are cut anew, augmentation, rounding, and all together. Every arm has --steps updates."
        " --seeds N (3) is the number of seeds of each arm, --batches their mini-batches (none: N / 2, N / 4, ... as"
        " the schedule allows), --draws M (8) the number of gradients from which noise is measured, --copies K (4) the"
        " augmented copies of each image in the control without noise. Finished runs are kept, so the same command"
        " continues after an interruption.",
        data="digits",
    )
    parsed.config.check()
    recipe, settings = parsed.config.recipe, parsed.config.settings
    path = Path(settings.run_dir or f"runs/dial-{slug(recipe.data.name)}-{parsed.name}")
    console.print(f"planning a dial of {parsed.name} on {recipe.data.name}")
    if not flags.plan_only:
        prepared.start()
    from noiseless.data import extent, home
    from noiseless.study import dial

    shape = extent(recipe.data.name, home(settings.data_dir), recipe.data.pixels)
    images, _ = recipe.data.divided(shape.train)
    arms = dial.arms(recipe, images, flags.batches, flags.copies, _has_batch_norm(recipe, shape))
    by_arm = dial.jobs(arms, flags.seeds, path)
    execution.refuse_place(path)
    _print_plan(by_arm, flags, images, path, settings.data_dir)
    if flags.plan_only:
        return 0
    last = max(job.recipe.schedule.steps for jobs in by_arm.values() for job in jobs)
    settings = replace(settings, threads=1, evaluate_every=last, keep=1)
    planned = [job for jobs in by_arm.values() for job in jobs]

    def line(job: Job) -> str:
        return f"{job.title:28} test accuracy {job.directory.rows()[-1]['test_accuracy']:.2%}"

    stopped, failed = execution.execute(planned, flags.jobs, settings, line, "dial")
    try:
        results = [_result(arm, jobs, flags.draws, measure=not stopped) for arm, jobs in by_arm.items()]
    except KeyboardInterrupt:
        stopped, results = True, [_result(arm, jobs, flags.draws, measure=False) for arm, jobs in by_arm.items()]
    _show(parsed, path, results, by_arm, command)
    if failed:
        console.print(f"not finite, and in no mean: {', '.join(failed)}", style="bold red")
    if stopped:
        console.print("stopped; run the same command again to continue")
    return INTERRUPTED if stopped else 0


def _take_flags(arguments: list[str]) -> tuple[_Flags, list[str]]:
    """Splits off the command's own flags."""
    numbers = {"--seeds": SEEDS, "--draws": DRAWS, "--copies": COPIES, "--jobs": cores()}
    values = {}
    for flag, default in numbers.items():
        given = any(argument.partition("=")[0] == flag for argument in arguments)
        number, arguments = take_count(arguments, flag)
        values[flag] = number if given else default
    if values["--draws"] < LEAST_DRAWS:
        raise ValueError(f"--draws must be at least {LEAST_DRAWS}, not {values['--draws']}: fewer give no error")
    at_least("draws", values["--draws"], LEAST_DRAWS, 1000)
    at_least("copies", values["--copies"], 1, MOST_COPIES)
    at_least("jobs", values["--jobs"], 1, MOST_JOBS)
    at_least("seeds", values["--seeds"], 1, 1000)
    text, arguments = take(arguments, "--batches")
    batches = tuple(whole("--batches", part.strip(), MOST_WORKERS * 100) for part in text.split(",")) if text else ()
    plan_only = "--plan-only" in arguments
    rest = [argument for argument in arguments if argument != "--plan-only"]
    return _Flags(values["--seeds"], batches, values["--draws"], values["--copies"], values["--jobs"], plan_only), rest


def _has_batch_norm(recipe: Recipe, shape: Extent) -> bool:
    """Whether the recipe's model has a batch-norm layer."""
    from torch.nn.modules.batchnorm import _BatchNorm

    from noiseless import models
    from noiseless.run.build import choices

    form, options = choices(recipe)
    channels, height, width = shape.shape
    model = models.build(recipe.model.name, channels, shape.classes, form, 0, options, (height, width))
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def _result(arm: Arm, jobs: list[Job], draws: int, measure: bool) -> Result:
    """An arm's finished runs, with the noise that is known or, if asked, measured now."""
    from noiseless.ask.draws import measure as measure_noise
    from noiseless.files.drawn import measured
    from noiseless.report import dial
    from noiseless.study.dial import states

    runs = []
    for job in jobs:
        if not job.finished:
            continue
        known = measured(job.directory, states(job))
        if measure and len(known) < len(states(job)):
            console.print(f"measuring the noise of {job.title}")
            known = list(measure_noise(job.directory, states(job), draws))
        last = job.directory.rows()[-1]
        runs.append(dial.Ended(job.recipe.seed, last["test_accuracy"], last["passes"], known))
    return dial.Result(arm, runs)


def _show(parsed: Parsed, path: Path, results: list[Result], by_arm: dict[Arm, list[Job]], command: str) -> None:
    """Prints the differences in accuracy and the noise, and writes the files."""
    from noiseless.report import comparison, dial, drawing
    from noiseless.study.compared import compare_runs

    reference, *others = ([job.path for job in jobs if job.finished] for jobs in by_arm.values())
    names = [arm.name for arm, jobs in by_arm.items() if any(job.finished for job in jobs)]
    updates = results[0].arm.recipe.schedule.steps
    title = f"{parsed.name} on {parsed.config.recipe.data.name}, {updates} updates"
    compared = [path for paths in others for path in paths]
    if reference and compared:
        differences = compare_runs(compared, reference, labels=[*names[1:], names[0]])
        for part in (comparison.differences(differences), "", *comparison.legend(differences), ""):
            console.print(part, soft_wrap=False)
    if not any(result.runs for result in results):
        return
    console.print(dial.table(results, f"noise of the gradient: {title}"))
    console.print(dial.NOTE)
    console.print(dial.ROUNDING)
    files = dial.write(path, results, f"Dial: {title}", command, updates)
    figures = drawing.write(path, [dial.figure(results, title)], "noise")
    pictures = [str(file) for file in figures if file.suffix == ".png"]
    console.print(f"table: {' and '.join(map(str, files))}\nfigure: {', '.join(pictures)}")


def _print_plan(by_arm: dict[Arm, list[Job]], flags: _Flags, images: int, path: Path, data_dir: str | None) -> None:
    """Checks the planned runs, and prints them with their cost."""
    from noiseless.ask import draws
    from noiseless.files.drawn import measured
    from noiseless.study import reproduce
    from noiseless.study.dial import states

    planned = [job for jobs in by_arm.values() for job in jobs]
    costs = reproduce.check(planned, data_dir)
    table = Table(title=f"plan: {len(planned)} runs, {flags.jobs} in parallel on one thread each")
    for heading in ("arm", "updates", "passes", "noise", "seeds left", "time of a run"):
        table.add_column(heading, justify="left" if heading == "arm" else "right", no_wrap=True)
    noise_passes = 0.0
    for arm, jobs in by_arm.items():
        steps = arm.recipe.schedule.steps
        left = sum(not job.finished for job in jobs)
        cost = costs.get(replace(arm.recipe, seed=0))
        noise = len(states(jobs[0])) * draws.passes(arm.recipe, flags.draws, images)
        noise_passes += sum(noise for job in jobs if not job.finished or not measured(job.directory, states(job)))
        table.add_row(
            arm.name, str(steps * arm.updates_a_step), f"{steps * jobs[0].passes:g}", f"{noise:.3g}",
            f"{left} of {flags.seeds}", "-" if cost is None else duration(cost),
        )  # fmt: skip
    console.print(table)
    total = duration(reproduce.estimate(planned, costs, flags.jobs))
    console.print(
        f"{reproduce.passes_left(planned):g} passes to go, about {total} from a short measurement on this machine, and"
        f" {noise_passes:.3g} passes for the noise; runs in {path}"
    )
