"""The command `plan`: passes, memory, bytes sent and time of a run before it begins."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from noiseless.commands.arguments import parse_config, take_count, take_positive
from noiseless.commands.console import console, duration, tell_aside
from noiseless.recipes.config import Config
from noiseless.recipes.ladder import published
from noiseless.system import cores

if TYPE_CHECKING:
    from noiseless.cost.plan import Figures, Plan

LEAST = 2.0
"""seconds spent on measuring each part of a step"""
FIGURES = ("--flops", "--memory-bandwidth", "--link-bandwidth")
"""flags that describe a worker's device"""
MEMORY = {
    "parameters": "parameters",
    "gradient": "gradient",
    "parts": "newest gradients of the parts",
    "optimizer": "optimizer's state",
    "average": "average of states",
    "bins": "bins of the exact sum",
    "block_gradients": "gradients of a chunk",
    "activations": "activations of a chunk",
    "data": "data set",
}
"""fields of `Memory`, and their names in the table"""
SECONDS = {
    "compute": "compute",
    "traffic": "activations through memory",
    "exact_sum": "exact sum",
    "all_reduce": "all-reduce",
    "rest": "update, rounding the sum",
}
"""fields of `Seconds`, and their names in the table"""


@dataclass(frozen=True)
class Result:
    """A plan with the source of its seconds and notes for the user."""

    plan: Plan
    source: str
    """where the seconds come from"""
    notes: list[str]


def plan(arguments: list[str]) -> int:
    """Prints the cost of a run; nothing is downloaded or trained."""
    workers, arguments = take_count(arguments, "--workers")
    figures: dict[str, float | None] = {}
    for flag in FIGURES:
        figures[flag], arguments = take_positive(arguments, flag)
    as_json = "--json" in arguments
    config = parse_config(
        [argument for argument in arguments if argument != "--json"],
        "plan [RECIPE] [--form {small,paper}] [--workers W] [--flops F] [--memory-bandwidth B] [--link-bandwidth B]"
        " [--json]",
        "Estimate passes, memory, bytes sent and time of a run before it begins; nothing is trained.\n\n"
        "The other flags are those of noiseless train. Without --flops, a step is measured on this machine, which needs"
        " the data set. To plan for another device, give --flops F (FLOP/s that a worker reaches in practice),"
        " --memory-bandwidth B (bytes/s of its memory) and --link-bandwidth B (bytes/s between workers). --workers W is"
        " the number of processes that share the work. --json prints one JSON object.",
        data="digits",
    ).config
    config.check()
    if not as_json:
        console.print(f"planning {config.recipe.name}: {config.recipe.model.name} on {config.recipe.data.name}")
    if config.recipe.compat == "published":
        config = replace(config, recipe=published(config.recipe))
    flops = figures["--flops"]
    if flops is None:
        for flag in FIGURES[1:]:
            if figures[flag] is not None:
                raise ValueError(f"{flag} {figures[flag]:g} describes a device: give its --flops, too")
        result = _by_measurement(config, workers)
    else:
        from noiseless.cost.plan import Figures

        device = Figures(flops, figures["--memory-bandwidth"], figures["--link-bandwidth"])
        result = _by_figures(config, workers, device)
    if as_json:
        print(json.dumps(_values(result)))  # noqa: T201  # one line, however long
    else:
        _print(config, result)
    return 0


def _by_figures(config: Config, workers: int, figures: Figures) -> Result:
    """Plans with the figures of a device."""
    from noiseless.cost.plan import by_figures
    from noiseless.cost.sizes import sizes
    from noiseless.data import extent, home

    recipe, settings = config.recipe, config.settings
    counts = sizes(recipe, extent(recipe.data.name, home(settings.data_dir), recipe.data.pixels))
    plan = by_figures(recipe, settings, counts, workers, figures)
    notes = _notes(config, plan)
    if figures.memory_bandwidth is None:
        notes.append("without --memory-bandwidth, the time of memory traffic is not counted")
    if figures.link_bandwidth is None and workers > 1:
        notes.append("without --link-bandwidth, the all-reduce is not counted")
    return Result(plan, "from the given figures of a device", notes)


def _by_measurement(config: Config, workers: int) -> Result:
    """Plans with a short measurement on this machine."""
    import torch

    from noiseless.cost.cost import measure, measure_beside
    from noiseless.cost.plan import by_measurement
    from noiseless.cost.sizes import sizes
    from noiseless.data import extent, home, is_local
    from noiseless.run.build import build
    from noiseless.run.speed import keep_memory

    recipe, settings = config.recipe, config.settings
    directory = home(settings.data_dir)
    if not is_local(recipe.data.name, directory, recipe.data.pixels):
        raise ValueError(
            f"{recipe.data.name} is not on this machine, so a step cannot be measured: download it with noiseless data"
            f" fetch {recipe.data.name}, or give --flops, --memory-bandwidth and --link-bandwidth of a worker's device,"
            " such as 4e14, 3e12 and 5e10"
        )
    if workers > 1 and settings.threads is None:  # as in train --workers
        settings = replace(settings, threads=torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1)
    keep_memory()  # as in train
    experiment = build(Config(recipe, settings))
    for note in experiment.notes:
        tell_aside(note.replace("at the first step", "for the measurement"))
    recipe, settings = experiment.config.recipe, experiment.config.settings
    data = replace(
        extent(recipe.data.name, Path(settings.data_dir or directory), recipe.data.pixels),
        train=len(experiment.train),
        test=len(experiment.test),
    )
    if experiment.space.device.type == "cuda":
        room = float(torch.cuda.device_count())
    else:
        room = cores() / (settings.threads or 1)
    processes = int(min(workers, max(room, 1)))
    measured = measure_beside(experiment.config, processes, LEAST) if processes > 1 else measure(experiment, LEAST)
    plan = by_measurement(recipe, settings, sizes(recipe, data), workers, measured, room)
    notes = _notes(config, plan)
    if workers > 1:
        shared = f", which has cores for {room:g} of them" if plan.busy > room else ""
        notes.append(f"the {workers} workers are processes on this machine{shared}")
    return Result(plan, "from a short measurement on this machine", notes)


def _notes(config: Config, plan: Plan) -> list[str]:
    """Notes on idle workers and on what the plan does not count."""
    from noiseless.optim import optimizer_entry

    recipe = config.recipe
    notes = []
    if plan.idle:
        blocks, chunks = plan.share.blocks, plan.share.chunks
        update = " an update" if plan.share.updates > 1 else ""
        notes.append(
            f"{plan.workers} workers for {blocks} block{'s' * (blocks > 1)}{update} in {chunks}"
            f" chunk{'s' * (chunks > 1)}: {plan.idle} of them have nothing to do"
            + ("; a smaller --chunk would give them some" if blocks > chunks else "")
        )
    if recipe.optimizer.line_search != "none" or optimizer_entry(recipe.optimizer.name).evaluates_itself:
        notes.append(f"{recipe.optimizer.name} may evaluate several times a step; only the first evaluation is counted")
    if recipe.schedule.stop_perfect:
        notes.append("--stop-perfect may end the run earlier")
    return notes


def _values(result: Result) -> dict[str, object]:
    """All numbers for JSON, with the sums that the table shows."""
    plan = result.plan
    return {
        **asdict(plan),
        "memory": asdict(plan.memory) | {"total": plan.memory.total},
        "seconds": asdict(plan.seconds) | {"step": plan.seconds.step},
        "time": plan.time,
        "limit": plan.seconds.limit,
        "idle": plan.idle,
        "source": result.source,
        "notes": result.notes,
    }


def _print(config: Config, result: Result) -> None:
    """Prints a plan as a table, with its source, the slowest part and the notes."""
    from noiseless.data.progress import size

    recipe, plan = config.recipe, result.plan
    workers = f"{plan.workers} worker{'s' * (plan.workers > 1)}"
    table = Table(
        title=f"plan: {recipe.name}, {recipe.model.name} on {recipe.data.name}, {plan.steps:,} steps, {workers}",
        box=None,
    )
    table.add_column("what", no_wrap=True)
    table.add_column("how much", justify="right", no_wrap=True)
    table.add_row("passes a step", f"{plan.passes_a_step:g}")
    table.add_row("passes", f"{plan.passes:,g}" if plan.passes < 1e6 else f"{plan.passes:,.0f}")
    table.add_row("FLOPs", f"{plan.flops:.3g}")
    table.add_row("parameters", f"{plan.parameters:,}")
    table.add_row("memory of a worker", size(plan.memory.total))
    for name, count in asdict(plan.memory).items():
        if count:
            table.add_row(f"  {MEMORY[name]}", size(count))
    table.add_row("blocks of the busiest worker", f"{plan.share.own:,} of {plan.share.blocks * plan.share.updates:,}")
    table.add_row("sent by a worker in a step", size(round(plan.wire)))
    table.add_row("time of a step", f"{plan.seconds.step:.3g} s")
    for name, seconds in asdict(plan.seconds).items():
        if seconds:
            table.add_row(f"  {SECONDS[name]}", f"{seconds:.3g} s")
    table.add_row(f"{plan.evaluations} evaluations", duration(plan.evaluations * plan.evaluation))
    if plan.checkpoint:
        table.add_row(f"{plan.checkpoints} checkpoints", duration(plan.checkpoints * plan.checkpoint))
    table.add_row("time to finish", duration(plan.time))
    console.print(table)
    limit = plan.seconds.limit
    share = getattr(plan.seconds, limit) / plan.seconds.step
    overlap = "; compute and memory traffic overlap" if plan.seconds.traffic else ""
    console.print(f"{result.source}; limited by: {SECONDS[limit]}, {share:.0%} of a step{overlap}")
    for note in result.notes:
        console.print(f"note: {note}")
