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
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from noiseless.run import ceiling
from noiseless.run.bench import Case, Side, facts, memory, ours, peaks, plain
from noiseless.run.config import Config, Settings
from noiseless.run.recipes import row

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
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = _random_images(Path(place) / "many.npz", MANY)
        shared = _random_images(Path(place) / "shared.npz", SHARED)
        peak = peaks(asked.threads)
        for name, rate in peak.items():
            kind = "fastest matrix product" if "product" in name else "fastest kernel"
            print(f"{kind}, {'bfloat16' if 'bfloat16' in name else 'float32'}: {rate / 1e9:.0f} GFLOP/s")
        print()
        print("| sweep | images/s | plain float32 | ratio | convolutions alone | GFLOP/s | of the fastest kernel |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        framed, peaked = {}, {}
        for block in (128, 32):
            recipe = replace(row("fb-regularized", "paper"), data=data, block=block)
            config = Config(recipe, Settings(threads=asked.threads, compile=asked.compile))
            flops, _ = facts(config)
            framed[block], peaked[block] = _compare(config, asked.rounds, flops, peak)
        for block in (128, 32):
            print(f"\nblock {block}, penalised step over {MANY} images:")
            print(f"outside forward and backward {_spread(framed[block])} %")
            mine, other = peaked[block]
            print(f"peak memory {mine:.0f} MiB, the plain loop's {other:.0f} MiB: {mine / other:.2f}")
        for count, images in ((MANY, data), (SHARED, shared)):
            alone, both = _workers(images, asked.compile, 1, 2), _workers(images, asked.compile, 2, 1)
            alone += _workers(images, asked.compile, 1, 2)  # before and after, as machines change their speed
            rates = [median(alone) / seconds for seconds in both]
            print(f"\n2 workers x 1 thread against 1 worker x 2 threads, steps of {count} images: {_spread(rates)}")


def _compare(config: Config, rounds: int, flops: float, peak: dict[str, float]) -> tuple[list[float], list[float]]:
    """Prints the rows of a block size; gives percentages outside forward and backward, and MiB of both sides."""
    cases = [Case(penalised, autocast) for penalised in (False, True) for autocast in ("none", "bfloat16")]
    found: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
    with Side(ours, config, IMAGES) as mine, Side(plain, config, IMAGES) as theirs:
        for case in cases:
            mine.turn(case)
        for penalised in (False, True):
            theirs.turn(Case(penalised, "none"))
        limits: dict[Case, list[float]] = {case: [] for case in cases}
        for _ in range(rounds):
            beside = {penalised: theirs.turn(Case(penalised, "none")) for penalised in (False, True)}
            alone = {autocast: ceiling.of(config, autocast, IMAGES, 2) for autocast in ("none", "bfloat16")}
            for case in cases:
                found[case].append((mine.turn(case).seconds, beside[case.penalised].seconds))
                limits[case].append(beside[case.penalised].seconds / alone[case.autocast] / (1 + case.penalised))
    with Side(ours, config, MANY) as mine:
        steps = [mine.turn(Case(True, "none", whole=True)) for _ in range(4)]
    framed = [100 * step.framed / step.seconds for step in steps[1:]]
    mebibytes = [each / 2**20 for each in memory(config, IMAGES)]
    for case, pairs in found.items():
        rate = IMAGES / median(mine for mine, _ in pairs)
        speed = rate * flops * (2 if case.penalised else 1)
        name = f"{'penalised' if case.penalised else 'risk'}, block {config.recipe.block}, {_precision(case)}"
        other = IMAGES / median(theirs for _, theirs in pairs)
        ratio = _spread([theirs / mine for mine, theirs in pairs])
        share = 100 * speed / peak[case.autocast]
        limit = median(limits[case])
        print(
            f"| {name} | {rate:.1f} | {other:.1f} | {ratio} | {limit:.2f} | {speed / 1e9:.0f} | {share:.0f} % |",
            flush=True,
        )
    return framed, mebibytes


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
