"""How far two contenders of a race are apart on the same test images, and how sure that is.

Seeds are a sample, and so are the images, which are the same for all seeds: with d the mean over seeds of the
difference of two contenders' hits on an image, and e a seed's mean difference over the images, the standard error is
`sqrt(var(d) / images + var(e) / seeds)`. It counts what is peculiar to both an image and a seed twice, so it is rather
too large than too small.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from noiseless.run.build import build
from noiseless.run.parameters import load_parameters
from noiseless.run.reading import config

BATCH = 512


def hits(heat: Path) -> Tensor:
    """Which test images the final models of a contender with a budget answer correctly: `[seeds, images]`, 0 or 1."""
    runs = sorted(heat.glob("seed*"), key=lambda run: int(run.name.removeprefix("seed")))
    return torch.stack([_of_run(run) for run in runs])


@torch.no_grad()
def _of_run(run: Path) -> Tensor:
    made = build(config(run))
    load_parameters(made.model, run / "model.safetensors")
    made.model.eval()
    found = []
    for index in torch.arange(len(made.test)).split(BATCH):
        x, y = made.test.take(index)
        found.append(made.model(x).argmax(1) == y)
    return torch.cat(found).double()


def difference(own: Tensor, other: Tensor) -> tuple[float, float]:
    """Points of accuracy that the first has more, with the standard error over seeds and images; seeds are paired."""
    more = 100 * (own - other)
    by_image, by_seed = more.mean(0), more.mean(1)
    error = (by_image.var() / len(by_image) + by_seed.var() / len(by_seed)).sqrt()
    return more.mean().item(), error.item()
