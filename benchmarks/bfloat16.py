"""What bfloat16 does to the accuracy of the digits ladder: the same rows and seeds, with and without autocast.

Run: .venv/bin/python benchmarks/bfloat16.py [--seeds 5] [--jobs 2]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev

from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import LADDER, row
from noiseless.study.processes import execute
from noiseless.study.reproduce import plan


def main() -> None:
    """Prints a Markdown table: mean and sample deviation over the seeds, and of the differences a seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    single = [row(name) for name in LADDER]
    half = [with_flags(each, name=f"{each.name}-bf16", autocast="bfloat16") for each in single]
    with tempfile.TemporaryDirectory() as place:
        jobs = plan([*single, *half], asked.seeds, Path(place))
        execute(jobs, asked.jobs, lambda job, found: None, lambda job, why: print(job.title, why or "done", flush=True))
        reached = {job.path.name: 100 * job.directory.rows()[-1]["test_accuracy"] for job in jobs if job.finished}
    print("\n| row | float32 | bfloat16 | difference a seed |\n| --- | --- | --- | --- |")
    for name in LADDER:
        one = [reached[f"{name}-seed{seed}"] for seed in range(asked.seeds)]
        other = [reached[f"{name}-bf16-seed{seed}"] for seed in range(asked.seeds)]
        parts = (one, other, [b - a for a, b in zip(one, other, strict=True)])
        print(f"| {name} | {' | '.join(f'{mean(part):.2f} ± {stdev(part):.2f}' for part in parts)} |")


if __name__ == "__main__":
    main()
