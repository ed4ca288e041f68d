"""The command `bench`: times a recipe's sweeps on this machine, beside those of a plain PyTorch loop."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from rich.table import Table

from noiseless.commands.arguments import parse_config, take_count
from noiseless.commands.console import console
from noiseless.report.text import number

ROUNDS = 5
"""default number of timed sweeps of each kind"""


def bench(arguments: list[str]) -> int:
    """Times the sweeps of a model, data set and device beside those of a plain loop."""
    rounds, arguments = take_count(arguments, "--rounds") if "--rounds" in arguments else (ROUNDS, arguments)
    parsed = parse_config(
        arguments,
        "bench [RECIPE] [--form {small,paper}] [--rounds N]",
        "Time sweeps (the gradient over many blocks) with the recipe's model, data and block size, in turns with those"
        " of a plain PyTorch loop. This takes about a minute; --rounds N is the number of timed sweeps of each kind.",
        data="digits",
    )
    parsed.config.check()
    console.print(f"timing {parsed.name}: {parsed.config.recipe.model.name} on {parsed.config.recipe.data.name}")
    import torch

    from noiseless.cost.bench import STRENGTH, compare

    threads = parsed.config.settings.threads or torch.get_num_threads()
    config = replace(parsed.config, settings=replace(parsed.config.settings, threads=threads))
    images, comparisons = compare(config, rounds)
    recipe = config.recipe
    precision = recipe.model.dtype if recipe.model.autocast == "none" else recipe.model.autocast
    table = Table(
        title=f"{recipe.model.name} in {precision}, block {recipe.objective.block}, {images} images a sweep, {threads}"
        f" threads, median of {rounds} (smallest to largest)",
        box=None,
    )
    for heading in ("sweep", "seconds", "images/s", "plain loop", "ratio"):
        table.add_column(heading, justify="left" if heading == "sweep" else "right", no_wrap=True)
    for times in comparisons:
        seconds, plain_seconds = median(times.seconds), median(times.plain_seconds)
        ratios = [plain / ours for ours, plain in zip(times.seconds, times.plain_seconds, strict=True)]
        table.add_row(
            times.name,
            number(seconds),
            number(images / seconds),
            number(images / plain_seconds),
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        )
    console.print(table)
    console.print(
        "plain loop: images/s of an eager PyTorch loop over the same blocks, without autocast, with one gradient a"
        f" block, or two where the sweep has a gradient penalty (of strength {STRENGTH:g})"
    )
    console.print("ratio: how many times faster the sweep is than the plain loop, computed in each round")
    return 0
