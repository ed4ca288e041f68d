"""The command that tells what a run will take, before it begins: plan."""

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

if TYPE_CHECKING:
    from noiseless.cost.plan import Figures, Plan

LEAST = 2.0
"""seconds of measuring a part of a step"""
FIGURES = ("--flops", "--memory-bandwidth", "--link-bandwidth")
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
SECONDS = {
    "compute": "compute",
    "traffic": "activations through memory",
    "exact_sum": "exact sum",
    "all_reduce": "all-reduce",
    "rest": "update, rounding the sum",
}


@dataclass(frozen=True)
class Told:
    """A plan, and what a reader should know of it."""

    plan: Plan
    source: str
    """where the seconds come from"""
    notes: list[str]


def plan(arguments: list[str]) -> int:
    """Prints what a run will take; nothing is downloaded or trained."""
    workers, arguments = take_count(arguments, "--workers")
    given: dict[str, float | None] = {}
    for flag in FIGURES:
        given[flag], arguments = take_positive(arguments, flag)
    as_json = "--json" in arguments
    config = parse_config(
        [argument for argument in arguments if argument != "--json"],
        "plan [RECIPE] [--form {small,paper}] [--workers W] [--flops F] [--memory-bandwidth B] [--link-bandwidth B]"
        " [--json]",
        "The flags are those of noiseless train. --flops F (FLOP/s of a worker, as they are reached),"
        " --memory-bandwidth B and --link-bandwidth B (bytes/s of a worker) describe its device; without them a step is"
        " measured on this machine, which needs the data. --json prints one JSON object.",
        data="digits",
    ).config
    config.check()
    if config.recipe.compat == "published":
        config = replace(config, recipe=published(config.recipe))
    flops = given["--flops"]
    if flops is None:
        for flag in FIGURES[1:]:
            if given[flag] is not None:
                raise ValueError(f"{flag} {given[flag]:g} describes a device: give its --flops, too")
        told = _measured(config, workers)
    else:
        from noiseless.cost.plan import Figures

        told = _given(config, workers, Figures(flops, given["--memory-bandwidth"], given["--link-bandwidth"]))
    if as_json:
        print(json.dumps(_values(told)))  # noqa: T201  # one line, however long
    else:
        _tell(config, told)
    return 0


def _given(config: Config, workers: int, figures: Figures) -> Told:
    """The plan from figures of a device."""
    from noiseless.cost.plan import by_figures
    from noiseless.cost.sizes import sizes
    from noiseless.data import extent, home

    recipe, settings = config.recipe, config.settings
    counted = sizes(recipe, extent(recipe.data.name, home(settings.data_dir), recipe.data.pixels))
    made = by_figures(recipe, settings, counted, workers, figures)
    notes = _notes(config, made)
    if figures.memory_bandwidth is None:
        notes.append("without --memory-bandwidth, what waits for memory is not counted")
    if figures.link_bandwidth is None and workers > 1:
        notes.append("without --link-bandwidth, the all-reduce is not counted")
    return Told(made, "from the figures given", notes)


def _measured(config: Config, workers: int) -> Told:
    """The plan from a short measurement."""
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
            f"{recipe.data.name} is not on this machine, so nothing can be measured: give --flops, --memory-bandwidth"
            " and --link-bandwidth of a worker's device, such as 4e14, 3e12 and 5e10"
        )
    if workers > 1 and settings.threads is None:  # as train --workers has it
        settings = replace(settings, threads=torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else 1)
    keep_memory()  # as train does
    experiment = build(Config(recipe, settings))
    if experiment.note:
        tell_aside(experiment.note.replace("at the first step", "for the measurement"))
    recipe, settings = experiment.config.recipe, experiment.config.settings
    data = replace(
        extent(recipe.data.name, Path(settings.data_dir or directory), recipe.data.pixels),
        train=len(experiment.train),
        test=len(experiment.test),
    )
    if experiment.space.device.type == "cuda":
        room = float(torch.cuda.device_count())
    else:
        room = len(os.sched_getaffinity(0)) / (settings.threads or 1)
    together = int(min(workers, max(room, 1)))
    measured = measure_beside(experiment.config, together, LEAST) if together > 1 else measure(experiment, LEAST)
    made = by_measurement(recipe, settings, sizes(recipe, data), workers, measured, room)
    notes = _notes(config, made)
    if workers > 1:
        shared = f", where {room:g} of them have cores of their own" if made.busy > room else ""
        notes.append(f"the {workers} workers are processes of this machine{shared}")
    return Told(made, "from a short measurement on this machine", notes)


def _notes(config: Config, made: Plan) -> list[str]:
    from noiseless.optim import optimizer_entry

    recipe = config.recipe
    notes = []
    if made.idle:
        blocks, chunks = made.share.blocks, made.share.chunks
        update = " an update" if made.share.updates > 1 else ""
        notes.append(
            f"{made.workers} workers for {blocks} block{'s' * (blocks > 1)}{update} in {chunks}"
            f" chunk{'s' * (chunks > 1)}: {made.idle} of them have nothing to do"
            + ("; a smaller --chunk would give them some" if blocks > chunks else "")
        )
    if recipe.optimizer.line_search != "none" or optimizer_entry(recipe.optimizer.name).evaluates_itself:
        notes.append(f"{recipe.optimizer.name} may evaluate several times a step: only the first is counted")
    if recipe.schedule.stop_perfect:
        notes.append("--stop-perfect may end the run earlier")
    return notes


def _values(told: Told) -> dict[str, object]:
    """All numbers by name, with the sums that the table shows."""
    made = told.plan
    return {
        **asdict(made),
        "memory": asdict(made.memory) | {"total": made.memory.total},
        "seconds": asdict(made.seconds) | {"step": made.seconds.step},
        "time": made.time,
        "limit": made.seconds.limit,
        "idle": made.idle,
        "source": told.source,
        "notes": told.notes,
    }


def _tell(config: Config, told: Told) -> None:
    from noiseless.data.progress import size

    recipe, made = config.recipe, told.plan
    workers = f"{made.workers} worker{'s' * (made.workers > 1)}"
    table = Table(
        title=f"plan: {recipe.name}, {recipe.model.name} on {recipe.data.name}, {made.steps:,} steps, {workers}",
        box=None,
    )
    table.add_column("what", no_wrap=True)
    table.add_column("how much", justify="right", no_wrap=True)
    table.add_row("passes a step", f"{made.passes_a_step:g}")
    table.add_row("passes", f"{made.passes:,g}" if made.passes < 1e6 else f"{made.passes:,.0f}")
    table.add_row("FLOPs", f"{made.flops:.3g}")
    table.add_row("parameters", f"{made.parameters:,}")
    table.add_row("memory of a worker", size(made.memory.total))
    for name, each in asdict(made.memory).items():
        if each:
            table.add_row(f"  {MEMORY[name]}", size(each))
    table.add_row("blocks, of the busiest worker", f"{made.share.own:,} of {made.share.blocks * made.share.updates:,}")
    table.add_row("sent by a worker, a step", size(round(made.wire)))
    table.add_row("time of a step", f"{made.seconds.step:.3g} s")
    for name, spent in asdict(made.seconds).items():
        if spent:
            table.add_row(f"  {SECONDS[name]}", f"{spent:.3g} s")
    table.add_row(f"{made.evaluations} evaluations", duration(made.evaluations * made.evaluation))
    if made.checkpoint:
        table.add_row(f"{made.checkpoints} checkpoints", duration(made.checkpoints * made.checkpoint))
    table.add_row("time to finish", duration(made.time))
    console.print(table)
    limit = made.seconds.limit
    share = getattr(made.seconds, limit) / made.seconds.step
    aside = "; compute and memory traffic overlap" if made.seconds.traffic else ""
    console.print(f"{told.source}; limited by: {SECONDS[limit]}, {share:.0%} of a step{aside}")
    for note in told.notes:
        console.print(f"note: {note}")
