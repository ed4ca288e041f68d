"""Sweeps of ResNet-18 on 32x32 images beside two plain PyTorch loops: speed, share of peak, overhead, memory, workers.

Run it alone on the machine: .venv/bin/python benchmarks/sweeps.py [--threads 2] [--rounds 5] [--compile on|off]
The first loop is what one writes at first; the second has its model and images in channels-last format, and a process
that keeps the memory which it frees, as this program's sweeps have. `--ratios` times the sweeps alone. All sides take
turns in processes of their own; figures are medians over the rounds, with the smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from noiseless.run import ceiling, plainloop
from noiseless.run.bench import Case, Make, Side, Timed, facts, memory, ours, peaks, plain
from noiseless.run.build import build
from noiseless.run.config import Config, Settings
from noiseless.run.recipes import row
from noiseless.run.speed import keep_memory

IMAGES = 128
"""of a sweep: one block of 128, or four of 32"""
MANY = 1024
"""of the steps whose frame is timed"""
SHARED = 4096
"""of the steps that workers share"""
STEPS = 3
"""of the runs by workers; the first is not counted"""


def main() -> None:
    """Prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", choices=("on", "off"), default="on")
    parser.add_argument("--blocks", type=int, nargs="+", default=[128, 32], help="sizes of a block")
    parser.add_argument("--ratios", action="store_true", help="no overhead, no memory and no workers")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = _random_images(Path(place) / "many.npz", MANY)
        shared = _random_images(Path(place) / "shared.npz", SHARED)
        peak = peaks(asked.threads)
        for name, rate in peak.items():
            kind = "fastest matrix product" if "product" in name else "fastest kernel"
            print(f"{kind}, {'bfloat16' if 'bfloat16' in name else 'float32'}: {rate / 1e9:.0f} GFLOP/s")
        print()
        print(
            "| sweep | images/s | plain float32 | ratio | plain, channels last and kept memory | ratio"
            " | convolutions alone | GFLOP/s | of the fastest kernel |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        configs = {}
        for block in asked.blocks:
            recipe = replace(row("fb-regularized", "paper"), data=data, block=block)
            configs[block] = Config(recipe, Settings(threads=asked.threads, compile=asked.compile))
            flops, _ = facts(configs[block])
            _compare(configs[block], asked.rounds, flops, peak)
        if asked.ratios:
            return
        for block, config in configs.items():
            print(f"\nblock {block}, penalised step over {MANY} images:")
            print(f"outside forward and backward {_spread(_outside(config))} %")
            mine, other = (size / 2**20 for size in memory(config, IMAGES))
            print(f"peak memory {mine:.0f} MiB, the plain loop's {other:.0f} MiB: {mine / other:.2f}")
        for count, images in ((MANY, data), (SHARED, shared)):
            alone, both = _workers(images, asked.compile, 1, 2), _workers(images, asked.compile, 2, 1)
            alone += _workers(images, asked.compile, 1, 2)  # before and after, as machines change their speed
            rates = [median(alone) / seconds for seconds in both]
            print(f"\n2 workers x 1 thread against 1 worker x 2 threads, steps of {count} images: {_spread(rates)}")


def tuned(config: Config, images: int) -> Callable[[Case], Timed]:
    """The plain loop's sweeps with channels-last model and images, in a process that keeps its memory."""
    keep_memory()
    experiment = build(replace(config, settings=replace(config.settings, compile="off")))
    model, recipe = experiment.model.train().to(memory_format=torch.channels_last), experiment.config.recipe
    x, y = experiment.train.take(torch.arange(images))
    x = x.contiguous(memory_format=torch.channels_last)
    blocks = list(zip(x.split(recipe.block), y.split(recipe.block), strict=True))

    def sweep(case: Case) -> Timed:
        began = time.perf_counter()
        if case.penalised:
            plainloop.penalised(model, blocks, config.recipe.lr / 4 * 0.5, recipe.penalty_eps)
        else:
            plainloop.risk(model, blocks)
        return Timed(time.perf_counter() - began)

    return sweep


BASELINES: tuple[Make, ...] = (plain, tuned)
"""loops beside which the sweeps are timed"""


def _compare(config: Config, rounds: int, flops: float, peak: dict[str, float]) -> None:
    """Prints the rows of a block size; all sides take turns in each round."""
    cases = [Case(penalised, autocast) for penalised in (False, True) for autocast in ("none", "bfloat16")]
    seconds: dict[Case, list[float]] = {case: [] for case in cases}
    plain_seconds: list[dict[bool, list[float]]] = [{False: [], True: []} for _ in BASELINES]
    limits: dict[str, list[float]] = {"none": [], "bfloat16": []}
    with ExitStack() as stack:
        mine = stack.enter_context(Side(ours, config, IMAGES))
        others = [stack.enter_context(Side(make, config, IMAGES)) for make in BASELINES]
        for number in range(rounds + 1):  # the first is not counted: it compiles and takes memory
            for side, taken in zip(others, plain_seconds, strict=True):
                for penalised in (False, True):
                    taken[penalised].append(side.turn(Case(penalised, "none")).seconds)
            for autocast in ("none", "bfloat16"):
                if number:
                    limits[autocast].append(ceiling.of(config, autocast, IMAGES, 2))
            for case in cases:
                seconds[case].append(mine.turn(case).seconds)
    for case in cases:
        _row(
            case, config, seconds[case][1:], [taken[case.penalised][1:] for taken in plain_seconds], limits, flops, peak
        )


def _row(
    case: Case,
    config: Config,
    seconds: list[float],
    baselines: list[list[float]],
    limits: dict[str, list[float]],
    flops: float,
    peak: dict[str, float],
) -> None:
    """Prints a line of the table: our rate, each baseline's with the ratio to it, and how far the machine goes."""
    rate = IMAGES / median(seconds)
    speed = rate * flops * (2 if case.penalised else 1)
    name = f"{'penalised' if case.penalised else 'risk'}, block {config.recipe.block}, {_precision(case)}"
    beside = [
        f"{IMAGES / median(theirs):.1f} | {_spread([b / a for a, b in zip(seconds, theirs, strict=True)])}"
        for theirs in baselines
    ]
    limit = median(
        first / alone / (1 + case.penalised) for first, alone in zip(baselines[0], limits[case.autocast], strict=True)
    )
    share = f"{speed / 1e9:.0f} | {100 * speed / peak[case.autocast]:.0f} %"
    print(f"| {name} | {rate:.1f} | {' | '.join(beside)} | {limit:.2f} | {share} |", flush=True)


def _outside(config: Config) -> list[float]:
    """Percentages of whole penalised steps that are not forward and backward."""
    with Side(ours, config, MANY) as side:
        steps = [side.turn(Case(True, "none", whole=True)) for _ in range(4)]
    return [100 * step.framed / step.seconds for step in steps[1:]]


def _precision(case: Case) -> str:
    return "float32" if case.autocast == "none" else case.autocast


def _workers(data: str, compiled: str, workers: int, threads: int) -> list[float]:
    """Seconds of the steps of a run."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        command = ["train", "fb", "--form", "paper", "--data", data, "--steps", STEPS, "--compile", compiled]
        command += ["--workers", workers, "--threads", threads, "--run-dir", run]
        called = [sys.executable, "-m", "noiseless", *(str(each) for each in command)]
        subprocess.run(called, check=True, capture_output=True)  # noqa: S603
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [each["seconds"] for each in rows[1:]]


def _random_images(path: Path, count: int) -> str:
    """A set of that many training images in a file."""
    random = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for part, images in (("train", count), ("test", 32)):
        made[f"x_{part}"] = random.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
        made[f"y_{part}"] = np.arange(images) % 10
    np.savez(path, **made)
    return f"npz:{path}"


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
