"""Sweeps of ResNet-18 on 32x32 images beside a plain PyTorch loop: speed, share of peak, overhead, memory, workers.

Run it alone on the machine: .venv/bin/python benchmarks/sweeps.py [--threads 2] [--rounds 5] [--compile on|off]
Both sides take turns in processes of their own; figures are medians over the rounds, with the smallest and largest.
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

from noiseless.objective import GradientPenalty
from noiseless.objective.gradients import BlockGradients, BlockLoss
from noiseless.optim import take_step
from noiseless.run.bench import Make, Side, Sweep, objective_of, ours, plain, wait
from noiseless.run.build import build
from noiseless.run.config import Config, Settings
from noiseless.run.recipes import row
from noiseless.run.record import make_row
from noiseless.run.speed import keep_memory
from noiseless.run.work import work

IMAGES = 128
"""of a sweep: one block of 128, or four of 32"""
MANY = 1024
"""of the steps whose frame is timed"""
SHARED = 4096
"""of the steps that workers share"""
STEPS = 3
"""of the runs by workers; the first is not counted"""
STILL = 1e-9
"""learning rate of the steps that are timed: the model stays where it is"""
CASES = [(penalised, autocast) for penalised in (False, True) for autocast in ("none", "bfloat16")]


def main() -> None:
    """Prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", choices=("on", "off"), default="on")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = _random_images(Path(place) / "many.npz", MANY)
        shared = _random_images(Path(place) / "shared.npz", SHARED)
        peak = ceiling.peaks(asked.threads)
        for name, rate in peak.items():
            kind = "fastest matrix product" if "product" in name else "fastest kernel"
            print(f"{kind}, {'bfloat16' if 'bfloat16' in name else 'float32'}: {rate / 1e9:.0f} GFLOP/s")
        print()
        print("| sweep | images/s | plain float32 | ratio | convolutions alone | GFLOP/s | of the fastest kernel |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        outside, peaked = {}, {}
        for block in (128, 32):
            recipe = replace(row("fb-regularized", "paper"), data=data, block=block)
            config = Config(recipe, Settings(threads=asked.threads, compile=asked.compile))
            outside[block], peaked[block] = _compare(config, asked.rounds, peak)
        for block in (128, 32):
            print(f"\nblock {block}, penalised step over {MANY} images:")
            print(f"outside forward and backward {_spread(outside[block])} %")
            mine, other = peaked[block]
            print(f"peak memory {mine:.0f} MiB, the plain loop's {other:.0f} MiB: {mine / other:.2f}")
        for count, images in ((MANY, data), (SHARED, shared)):
            alone, both = _workers(images, asked.compile, 1, 2), _workers(images, asked.compile, 2, 1)
            alone += _workers(images, asked.compile, 1, 2)  # before and after, as machines change their speed
            rates = [median(alone) / seconds for seconds in both]
            print(f"\n2 workers x 1 thread against 1 worker x 2 threads, steps of {count} images: {_spread(rates)}")


def _compare(config: Config, rounds: int, peak: dict[str, float]) -> tuple[list[float], list[float]]:
    """Prints the rows of a block size; gives percentages outside forward and backward, and MiB of both sides."""
    eager = build(replace(config, settings=replace(config.settings, compile="off")))
    flops = work(eager.config.recipe, eager.model, eager.train).gradient_flops
    times: dict[tuple[bool, str], list[tuple[float, float]]] = {case: [] for case in CASES}
    limits: dict[tuple[bool, str], list[float]] = {case: [] for case in CASES}
    with ExitStack() as stack:
        theirs = stack.enter_context(Side(plain, config, IMAGES))
        mine = {
            autocast: stack.enter_context(Side(ours, replace(config, recipe=recipe), IMAGES))
            for autocast, recipe in (("none", config.recipe), ("bfloat16", replace(config.recipe, autocast="bfloat16")))
        }
        for penalised, autocast in CASES:
            mine[autocast].turn(penalised)
        for penalised in (False, True):
            theirs.turn(penalised)
        for _ in range(rounds):
            loop = {penalised: theirs.turn(penalised) for penalised in (False, True)}
            alone = {autocast: ceiling.of(config, autocast, IMAGES, 2) for autocast in mine}
            for penalised, autocast in CASES:
                times[penalised, autocast].append((mine[autocast].turn(penalised), loop[penalised]))
                limits[penalised, autocast].append(loop[penalised] / alone[autocast] / (1 + penalised))
    with Side(framed, config, MANY) as side:
        outside = [side.turn(True) for _ in range(4)][1:]
    mebibytes = []
    for make in (ours, plain):
        with Side(partial(peak_memory, make), config, IMAGES) as side:
            mebibytes.append([side.turn(True) / 2**20 for _ in range(2)][-1])
    for (penalised, autocast), pairs in times.items():
        rate = IMAGES / median(seconds for seconds, _ in pairs)
        speed = rate * flops * (2 if penalised else 1)
        precision = "float32" if autocast == "none" else autocast
        name = f"{'penalised' if penalised else 'risk'}, block {config.recipe.block}, {precision}"
        other = IMAGES / median(seconds for _, seconds in pairs)
        ratio = _spread([beside / seconds for seconds, beside in pairs])
        share = 100 * speed / peak[autocast]
        limit = median(limits[penalised, autocast])
        print(
            f"| {name} | {rate:.1f} | {other:.1f} | {ratio} | {limit:.2f} | {speed / 1e9:.0f} | {share:.0f} % |",
            flush=True,
        )
    return outside, mebibytes


def framed(config: Config, images: int) -> Sweep:
    """Whole steps (transforms, optimizer and record too): percentage of a step outside forward and backward."""
    keep_memory()
    experiment = build(config)
    experiment.model.train()
    for group in experiment.optimizer.param_groups:
        group["lr"] = STILL

    def step(penalised: bool) -> float:
        objective = objective_of(experiment, images, penalised)
        risk = objective.risk if isinstance(objective, GradientPenalty) else objective
        risk.block_loss = clocked = _Clocked(risk.block_loss)  # type: ignore[assignment]
        began = time.perf_counter()
        taken = take_step(experiment.optimizer, objective, experiment.transform)
        make_row(experiment, 0, 1.0, config.recipe.lr, [taken], 0.0)
        wait()
        seconds = time.perf_counter() - began
        return 100 * (seconds - clocked.seconds) / seconds

    return step


def peak_memory(make: Make, config: Config, images: int) -> Sweep:
    """The most bytes in memory that the process had during a sweep; NaN where the system does not tell."""
    sweep = make(config, images)

    def measured(penalised: bool) -> float:
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()
            sweep(penalised)
            return float(torch.cuda.max_memory_allocated())
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
            sweep(penalised)
            status = Path("/proc/self/status").read_text()
        except OSError:
            return float("nan")
        return float(status.partition("VmHWM:")[2].split()[0]) * 1024

    return measured


class _Clocked:
    """Block gradients whose time is added up.

    Args:
        inner: what computes them.
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
