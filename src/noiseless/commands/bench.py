"""The command that measures this machine: sweeps beside a plain loop's, and what limits them."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from rich.table import Table

from noiseless.commands.arguments import parse_config, take_count
from noiseless.commands.console import console

if TYPE_CHECKING:
    from noiseless.run.bench import Case, Side, Timed

ROUNDS = 5
LONG = 1.0
"""seconds that the plain loop's turn takes at least"""
BOUND = 0.7
"""share of a sweep from which convolutions and products, rather than overhead or memory, are what limits"""


def bench(arguments: list[str]) -> int:
    """Times sweeps of one's own model, data and device beside a plain loop."""
    rounds, arguments = take_count(arguments, "--rounds") if "--rounds" in arguments else (ROUNDS, arguments)
    parsed = parse_config(
        arguments,
        "bench [RECIPE] [--form {small,paper}] [--rounds N]",
        "Sweeps of the recipe's model, data and block beside those of a plain PyTorch loop, in turns, in about three"
        " minutes.",
        data="digits",
    )
    import torch

    from noiseless.run import ceiling
    from noiseless.run.bench import Case, Side, facts, memory, ours, peaks, plain

    threads = parsed.config.settings.threads or torch.get_num_threads()
    config = replace(parsed.config, settings=replace(parsed.config.settings, threads=threads))
    flops, available = facts(config)
    cases = [Case(penalised, autocast) for penalised in (False, True) for autocast in ("none", "bfloat16")]
    peak = peaks(threads, config.settings.device)
    block = config.recipe.block
    if available < block:
        raise ValueError(
            f"there are {available} training images, less than one block of {block}: give a smaller --block"
        )
    images = min(_images(block, Side(plain, config, block)), available // block * block)
    with Side(ours, config, images) as mine, Side(plain, config, images) as theirs:
        for case in cases:  # compiles, allocates
            mine.turn(case)
        theirs.turn(cases[0])
        found: dict[Case, list[tuple[Timed, Timed]]] = {case: [] for case in cases}
        whole: list[Timed] = []
        for _ in range(rounds):
            beside = {penalised: theirs.turn(Case(penalised, "none")) for penalised in (False, True)}
            for case in cases:
                found[case].append((mine.turn(case), beside[case.penalised]))
            whole.append(mine.turn(Case(True, "none", whole=True)))
    made = Table(
        title=f"{config.recipe.model}, block {config.recipe.block}, {images} images a sweep, {threads} threads, median"
        f" of {rounds} (smallest to largest)",
        box=None,
    )
    for heading in ("sweep", "images/s", "plain", "ratio", "GFLOP/s", "of peak"):
        made.add_column(heading, justify="left" if heading == "sweep" else "right", no_wrap=True)
    for case, pairs in found.items():
        gradients = images * (2 if case.penalised else 1)
        rates = [images / mine.seconds for mine, _ in pairs]
        speed = median(rates) * gradients / images * flops
        made.add_row(
            f"{'penalised' if case.penalised else 'risk'}, {'float32' if case.autocast == 'none' else case.autocast}",
            f"{median(rates):.4g}",
            f"{median(images / other.seconds for _, other in pairs):.4g}",
            _spread([other.seconds / mine.seconds for mine, other in pairs]),
            f"{speed / 1e9:.3g}",
            f"{100 * speed / peak[case.autocast]:.0f} %",
        )
    console.print(made)
    single, half = (peak[name] / 1e9 for name in ("none", "bfloat16"))
    console.print("plain: an eager float32 loop in PyTorch over the same blocks, with one gradient a block, or two")
    console.print(f"peak: the fastest dense kernels here, float32 {single:.0f} and bfloat16 {half:.0f} GFLOP/s")
    outside = [100 * each.framed / each.seconds for each in whole]
    console.print(f"a penalised step over these images spends {_spread(outside)} % outside forward and backward")
    mebibytes, other = (f"{each / 2**20:.0f} MiB" for each in memory(config, images))
    console.print(f"peak memory of the process in a penalised sweep: {mebibytes}, the plain loop's {other}")
    first = [mine.seconds for mine, _ in found[cases[0]]]
    console.print(_limit(ceiling.of(config, "none", images) / median(first)))
    return 0


def _images(block: int, side: Side) -> int:
    """Images in whole blocks with which the plain loop takes long enough to be timed."""
    from noiseless.run.bench import Case

    with side:
        side.turn(Case(False, "none"))
        seconds = side.turn(Case(False, "none")).seconds
    return block * max(1, round(LONG / seconds))


def _limit(share: float) -> str:
    alone = f"convolutions and products alone, one after the other, take {100 * share:.0f} % of a float32 risk sweep"
    if share >= BOUND:
        return f"what limits it: arithmetic; {alone}"
    return (
        f"what limits it: memory and the overhead of small operations; {alone};"
        " larger blocks, a wider model or --compile on bring it nearer"
    )


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
