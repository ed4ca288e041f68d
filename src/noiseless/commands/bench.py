"""The command that times a recipe's sweeps on this machine, beside those of a plain PyTorch loop."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from rich.table import Table

from noiseless.commands.arguments import parse_config, take_count
from noiseless.commands.console import console

ROUNDS = 5


def bench(arguments: list[str]) -> int:
    """Times sweeps of one's own model, data and device beside a plain loop."""
    rounds, arguments = take_count(arguments, "--rounds") if "--rounds" in arguments else (ROUNDS, arguments)
    parsed = parse_config(
        arguments,
        "bench [RECIPE] [--form {small,paper}] [--rounds N]",
        "Sweeps of the recipe's model, data and block beside those of a plain PyTorch loop, in turns, in about a"
        " minute.",
        data="digits",
    )
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
        ratios = [theirs / mine for mine, theirs in zip(times.seconds, times.plain_seconds, strict=True)]
        table.add_row(
            times.name,
            f"{seconds:.3g}",
            f"{images / seconds:.4g}",
            f"{images / plain_seconds:.4g}",
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        )
    console.print(table)
    console.print(
        "plain loop: images/s of an eager loop in PyTorch over the same blocks, without autocast, with one gradient a"
        f" block, or two where the sweep has a gradient penalty (of strength {STRENGTH:g})"
    )
    console.print("ratio: how many times as fast as the plain loop the sweep is, round by round")
    return 0
