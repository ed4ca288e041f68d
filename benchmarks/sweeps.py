"""Times sweeps of ResNet-18 on 32x32 images beside two plain PyTorch loops; also overhead, memory and workers.

Run it alone on the machine: .venv/bin/python benchmarks/sweeps.py [--threads 2] [--rounds 5] [--compile on|off]
The first loop is the simplest one. The second has its model and images in channels-last format and a process that keeps
the memory which it frees, as in this program. With `--ratios`, only sweeps are timed. All sides run in separate
processes and take turns; numbers are medians over the rounds, with the smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import ceiling
import numpy as np
import torch

from noiseless.cost.bench import Make, Side, Sweep, objective_over, ours, plain, plain_sweeps, wait
from noiseless.objective import GradientPenalty
from noiseless.objective.contribution import BlockGradients
from noiseless.objective.gradients import BlockLoss
from noiseless.optim import take_step
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import row
from noiseless.run.build import build
from noiseless.run.record import DoneStep, DoneUpdate, make_row
from noiseless.run.speed import keep_memory
from noiseless.run.work import work

IMAGES = 128
"""images of a sweep: one block of 128, or four of 32"""
MANY = 1024
"""images of the steps whose overhead is timed"""
SHARED = 4096
"""images of the steps that workers share"""
STEPS = 3
"""steps of the runs with workers; the first is not counted"""
STILL = 1e-9
"""learning rate of the timed steps, so small that the model hardly changes"""
CASES = [(penalised, autocast) for penalised in (False, True) for autocast in ("none", "bfloat16")]


def main() -> None:
    """Prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", choices=("on", "off"), default="on")
    parser.add_argument("--blocks", type=int, nargs="+", default=[128, 32], help="sizes of a block")
    parser.add_argument("--ratios", action="store_true", help="time sweeps only: no overhead, memory or workers")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = random_images(Path(place) / "many.npz", MANY)
        shared = random_images(Path(place) / "shared.npz", SHARED)
        peak = ceiling.peaks(args.threads)
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
        for block in args.blocks:
            recipe = with_flags(row("fb-regularized", "paper"), data=data, block=block)
            configs[block] = Config(recipe, Settings(threads=args.threads, compile=args.compile))
            _compare(configs[block], args.rounds, peak)
        if args.ratios:
            return
        for block, config in configs.items():
            print(f"\nblock {block}, penalised step over {MANY} images:")
            with Side(step_overhead, config, MANY) as side:
                print(f"outside forward and backward {_spread([side.turn(True) for _ in range(4)][1:])} %")
            mine, other = (_mebibytes(make, config) for make in (ours, plain))
            print(f"peak memory {mine:.0f} MiB, the plain loop's {other:.0f} MiB: {mine / other:.2f}")
        for count, images in ((MANY, data), (SHARED, shared)):
            alone, both = _workers(images, args.compile, 1, 2), _workers(images, args.compile, 2, 1)
            alone += _workers(images, args.compile, 1, 2)  # before and after, as machines change their speed
            rates = [median(alone) / seconds for seconds in both]
            print(f"\n2 workers x 1 thread against 1 worker x 2 threads, steps of {count} images: {_spread(rates)}")


def tuned(config: Config, images: int) -> Sweep:
    """Builds the sweeps of the plain loop with channels-last model and images, in a process that keeps its memory."""
    keep_memory()
    experiment = build(replace(config, settings=replace(config.settings, compile="off")))
    model = experiment.model.train().to(memory_format=torch.channels_last)
    x, y = experiment.train.take(torch.arange(images))
    return plain_sweeps(model, x.contiguous(memory_format=torch.channels_last), y, experiment.config.recipe)


BASELINES: tuple[Make, ...] = (plain, tuned)
"""plain loops beside which the sweeps are timed"""


def _compare(config: Config, rounds: int, peak: dict[str, float]) -> None:
    """Prints the table rows of a block size. All sides take turns in each round; the first round is not counted."""
    seconds: dict[tuple[bool, str], list[float]] = {case: [] for case in CASES}
    loops: list[dict[bool, list[float]]] = [{False: [], True: []} for _ in BASELINES]
    limits: dict[str, list[float]] = {"none": [], "bfloat16": []}
    with ExitStack() as stack:
        others = [stack.enter_context(Side(make, config, IMAGES)) for make in BASELINES]
        mine = {
            autocast: stack.enter_context(
                Side(ours, replace(config, recipe=with_flags(config.recipe, autocast=autocast)), IMAGES)
            )
            for autocast in limits
        }
        for number in range(rounds + 1):
            for side, loop_seconds in zip(others, loops, strict=True):
                for penalised, times in loop_seconds.items():
                    times.append(side.turn(penalised))
            for autocast, alone in limits.items():
                if number:
                    alone.append(ceiling.sweep_ceiling(config, autocast, IMAGES, 2))
            for penalised, autocast in CASES:
                seconds[penalised, autocast].append(mine[autocast].turn(penalised))
    eager = build(replace(config, settings=replace(config.settings, compile="off")))
    flops = work(eager.config.recipe, eager.model, eager.train).gradient_flops
    for penalised, autocast in CASES:
        counted, baselines = seconds[penalised, autocast][1:], [loop[penalised][1:] for loop in loops]
        rate = IMAGES / median(counted)
        speed = rate * flops * (1 + penalised)
        precision = "float32" if autocast == "none" else autocast
        name = f"{'penalised' if penalised else 'risk'}, block {config.recipe.objective.block}, {precision}"
        beside = " | ".join(
            f"{IMAGES / median(theirs):.1f} | {_spread([b / a for a, b in zip(counted, theirs, strict=True)])}"
            for theirs in baselines
        )
        limit = median(
            loop / alone / (1 + penalised) for loop, alone in zip(baselines[0], limits[autocast], strict=True)
        )
        share = f"{speed / 1e9:.0f} | {100 * speed / peak[autocast]:.0f} %"
        print(f"| {name} | {rate:.1f} | {beside} | {limit:.2f} | {share} |", flush=True)


def _mebibytes(make: Make, config: Config) -> float:
    """Peak memory of a side's penalised sweeps, in MiB; the first is not counted."""
    with Side(partial(peak_memory, make), config, IMAGES) as side:
        return [side.turn(True) / 2**20 for _ in range(2)][-1]


def step_overhead(config: Config, images: int) -> Sweep:
    """Builds whole steps, with transforms, optimizer and record; a step returns its % outside forward and backward."""
    keep_memory()
    experiment = build(config)
    experiment.model.train()
    for group in experiment.optimizer.param_groups:
        group["lr"] = STILL

    def step(penalised: bool) -> float:
        objective = objective_over(experiment, images, penalised)
        risk = objective.risk if isinstance(objective, GradientPenalty) else objective
        risk.block_loss = clocked = _Clocked(risk.block_loss)  # type: ignore[assignment]
        began = time.perf_counter()
        outcome = take_step(experiment.optimizer, objective, experiment.transform)
        make_row(DoneStep(experiment, 0, 1.0, config.recipe.optimizer.lr, [DoneUpdate.of(outcome)], 0.0))
        wait()
        seconds = time.perf_counter() - began
        return 100 * (seconds - clocked.seconds) / seconds

    return step


def peak_memory(make: Make, config: Config, images: int) -> Sweep:
    """Builds sweeps that return the peak memory of the process in bytes; NaN if the system does not report it."""
    sweep = make(config, images)

    def measured(penalised: bool) -> float:
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
            sweep(penalised)
            return float(torch.cuda.max_memory_allocated())
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak
            sweep(penalised)
            status = Path("/proc/self/status").read_text()
        except OSError:
            return float("nan")
        return float(status.partition("VmHWM:")[2].split()[0]) * 1024

    return measured


class _Clocked:
    """A block loss that adds up the seconds of its gradients.

    Args:
        inner: block loss that computes them.
    """

    def __init__(self, inner: BlockLoss):
        self._inner = inner
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def differentiate(self, *arguments: Any, **named: Any) -> BlockGradients:
        """Computes a chunk's gradients."""
        began = time.perf_counter()
        gradients = self._inner.differentiate(*arguments, **named)
        wait()
        self.seconds += time.perf_counter() - began
        return gradients


def _workers(data: str, compiled: str, workers: int, threads: int) -> list[float]:
    """Seconds of each step of a run, without the first."""
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        command = ["train", "fb", "--form", "paper", "--data", data, "--steps", STEPS, "--compile", compiled]
        command += ["--workers", workers, "--threads", threads, "--run-dir", run]
        program = [sys.executable, "-m", "noiseless", *(str(word) for word in command)]
        subprocess.run(program, check=True, capture_output=True)  # noqa: S603
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [row["seconds"] for row in rows[1:]]


def random_images(path: Path, count: int) -> str:
    """Writes a data set with `count` random training images; returns its name for `--data`."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, images in (("train", count), ("test", 32)):
        arrays[f"x_{part}"] = random.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(images) % 10
    np.savez(path, **arrays)
    return f"npz:{path}"


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
