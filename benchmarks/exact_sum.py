"""Times the exact sum beside the block gradients that it adds: ResNet-18, block 128, float32, without compiling.

Run it alone on the machine: .venv/bin/python benchmarks/exact_sum.py [--threads 2] [--rounds 7]
In each round a block's gradient is computed, then added to an exact sum and, for comparison, to a plain float64 sum.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from noiseless import models
from noiseless.examples.blocks import Batch
from noiseless.objective import EmpiricalRisk, ExactSum, cross_entropy


def main() -> None:
    """Prints milliseconds and shares of the gradient's time: median, smallest and largest round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = models.build("resnet18", 3, 10)
    x, y = torch.randn(128, 3, 32, 32), torch.arange(128) % 10
    risk = EmpiricalRisk(model, cross_entropy, (x, y), block=128)
    batch, theta = Batch(0, torch.arange(128)[None], (x[None],), y[None]), risk.space.theta.detach()
    exact, plain = ExactSum(len(risk.space)), torch.zeros(len(risk.space), dtype=torch.float64)
    seconds: dict[str, list[float]] = {"block gradient": [], "exact sum": [], "plain float64 sum": []}
    for round_ in range(args.rounds + 1):
        marks = [time.perf_counter()]
        with risk.block_loss.in_sweep():
            gradient = risk.block_loss.differentiate(theta, batch, record=True).gradient
        marks.append(time.perf_counter())
        exact.add(gradient, batch.counts)
        marks.append(time.perf_counter())
        plain.addcmul_(gradient[0].double(), batch.counts[0])
        marks.append(time.perf_counter())
        if round_:  # the first one warms up
            for name, start, end in zip(seconds, marks, marks[1:], strict=False):
                seconds[name].append(end - start)
    print(f"{len(risk.space):,} parameters, {args.threads} threads, {args.rounds} rounds")
    for name, its_seconds in seconds.items():
        print(f"{name:18} {_spread([1e3 * s for s in its_seconds])} ms")
    for name in ("exact sum", "plain float64 sum"):
        shares = [100 * s / g for s, g in zip(seconds[name], seconds["block gradient"], strict=True)]
        print(f"{name:18} {_spread(shares)} % of the block gradient")


def _spread(values: list[float]) -> str:
    """Median, smallest and largest value."""
    return f"{statistics.median(values):8.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
