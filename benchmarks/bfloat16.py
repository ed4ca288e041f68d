"""Compares the test accuracy of the digits ladder in float32 and with bfloat16 autocast, for the same seeds.

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
    """Prints a Markdown table: mean ± sample standard deviation over seeds, of both and of their differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    single = [row(name) for name in LADDER]
    half = [with_flags(recipe, name=f"{recipe.name}-bf16", autocast="bfloat16") for recipe in single]
    with tempfile.TemporaryDirectory() as place:
        jobs = plan([*single, *half], args.seeds, Path(place))
        execute(jobs, args.jobs, lambda job, row: None, lambda job, why: print(job.title, why or "done", flush=True))
        accuracies = {job.path.name: 100 * job.directory.rows()[-1]["test_accuracy"] for job in jobs if job.finished}
    print("\n| row | float32 | bfloat16 | difference by seed |\n| --- | --- | --- | --- |")
    for name in LADDER:
        in_float32 = [accuracies[f"{name}-seed{seed}"] for seed in range(args.seeds)]
        in_bfloat16 = [accuracies[f"{name}-bf16-seed{seed}"] for seed in range(args.seeds)]
        columns = (in_float32, in_bfloat16, [b - a for a, b in zip(in_float32, in_bfloat16, strict=True)])
        print(f"| {name} | {' | '.join(f'{mean(column):.2f} ± {stdev(column):.2f}' for column in columns)} |")


if __name__ == "__main__":
    main()
