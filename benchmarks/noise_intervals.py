"""How often a gradient of zero passes for one that is not, and how often the intervals of gradient noise are right.

    python benchmarks/noise_intervals.py [DRAWS]

Block gradients are normal draws in 300 dimensions, whose noise lies in one direction, is equal in all, or falls as
1 / k; the true gradient G has `|G|^2 = r S / n` for n blocks. Printed are the shares of draws in which the estimate
of |G|^2 is positive, in which it is distinguished from zero, in which its interval holds the true value, and, of those
with a noise scale, in which the interval of the scale does. About a minute for 2,000 draws.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from noiseless.analysis import Moments
from noiseless.analysis.moments import moments

LENGTH = 300
SPECTRA = {"one": np.eye(1, LENGTH)[0], "equal": np.ones(LENGTH), "1 / k": 1 / np.arange(1, LENGTH + 1)}


def draw(rng: np.random.Generator, blocks: int, variances: np.ndarray, gradient: np.ndarray) -> Moments:
    """Moments of one draw of block gradients, each of one example."""
    rows = gradient + rng.standard_normal((blocks, LENGTH)) * np.sqrt(variances)
    mean = rows.mean(0)
    apart = torch.from_numpy(rows - mean)
    spreads = apart.square().sum(1)
    counts = torch.ones(blocks, dtype=torch.float64)
    return moments(float(mean @ mean), float(spreads.sum()), spreads, apart @ torch.from_numpy(mean), counts)


def main(draws: int = 2000) -> None:
    """Prints the table."""
    rng = np.random.default_rng(0)
    print("blocks  noise    r  positive  distinguished  |G|^2 held  scale held")
    for blocks in (4, 8, 16, 64):
        for name, variances in SPECTRA.items():
            for ratio in (0, 1, 5):
                direction = rng.standard_normal(LENGTH)
                square = ratio * variances.sum() / blocks
                gradient = direction / np.linalg.norm(direction) * np.sqrt(square)
                results = [draw(rng, blocks, variances, gradient) for _ in range(draws)]
                scales = [(m, m.noise_scale_interval) for m in results]
                held = [low <= variances.sum() / square <= high for m, i in scales if i and square for low, high in [i]]
                shares = (
                    np.mean([m.signal > 0 for m in results]),
                    np.mean([m.noise_scale is not None for m in results]),
                    np.mean([low <= square <= high for m in results for low, high in [m.signal_interval or (0, 0)]]),
                    np.mean(held) if held else np.nan,
                )
                print(f"{blocks:6}  {name:5} {ratio:4}" + "".join(f"{share:12.4f}" for share in shares), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
