"""Times augmentation policies: operations applied to all images that drew the same, beside one image at a time.

Run: .venv/bin/python benchmarks/policies.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from statistics import median

import torch

from noiseless.data import make_policy, policy_names

SIZES = (128, 2048)


def main() -> None:
    """Prints a Markdown table: milliseconds an image, and the ratio, as medians of rounds in which both take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    print("| policy | images | ms an image | one at a time | ratio |\n| --- | ---: | ---: | ---: | ---: |")
    for name in policy_names():
        policy = make_policy(name, 3)
        if policy.chains is None:
            continue
        single = replace(policy, chains=None)
        for count in SIZES:
            images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
            index = torch.arange(count)
            times: tuple[list[float], list[float]] = ([], [])
            for step in range(args.rounds + 1):  # the first one warms up
                results = []
                for one, taken in zip((policy, single), times, strict=True):
                    began = time.perf_counter()
                    results.append(one(images, 0, step, index))
                    taken.append((time.perf_counter() - began) / count * 1e3)
                assert torch.equal(*results)
            ratios = sorted(b / a for a, b in zip(times[0][1:], times[1][1:], strict=True))
            spread = f"{median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
            print(
                f"| `{name}` | {count} | {median(times[0][1:]):.3f} | {median(times[1][1:]):.3f} | {spread} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
