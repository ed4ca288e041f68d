"""Measures how close the direction of `aggregated` is to the full gradient, as all but one of its parts are outdated.

.venv/bin/python benchmarks/lag.py [--seeds 3]
At each update of a run, the full gradient is computed at the same parameters. Its cosine is taken with the mean of the
newest gradients of all parts, which `aggregated` follows, and with the gradient of the newest part alone, which a
mini-batch of that size would follow. Norm blocks of the full gradient hold other images than those of the parts. Writes
benchmarks/results/price/lag.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from statistics import mean

import torch
import torch.nn.functional as F
from price import course, provenance, save, title

from noiseless.optim import take_step
from noiseless.recipes.config import Config, Settings
from noiseless.report.summary import spread
from noiseless.run.build import build
from noiseless.study.contenders import CONTENDERS

BUDGET = 30
THIRDS = ("first", "second", "last")
SHOWN = ("digits", "digits-noaug")
"""races with images small enough for a full gradient at each update"""
WHAT = "cosine with the full gradient, mean over the updates of a third of a run of 30 passes; ± deviation over seeds"


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    if seeds < 2:
        parser.error("--seeds must be at least 2, for a standard deviation")
    heads = [f"{what}, {third} third" for what in ("all parts", "the newest alone") for third in THIRDS]
    rows = []
    for race in SHOWN:
        by_seed = zip(*(_thirds(race, seed) for seed in range(seeds)), strict=True)
        rows.append(
            {"set": title(race), **{head: spread(list(values), 2) for head, values in zip(heads, by_seed, strict=True)}}
        )
        print(rows[-1], flush=True)
    save("lag", {"command": f"benchmarks/lag.py --seeds {seeds}", **provenance(), "what": WHAT, "rows": rows})


def _thirds(race: str, seed: int) -> list[float]:
    """Mean cosines of a run, for the aggregate and for single parts, in each third of its steps."""
    steps: list[list[tuple[float, float]]] = [[] for _ in THIRDS]
    for step, pair in _cosines(race, seed):
        steps[step * len(THIRDS) // BUDGET].append(pair)
    return [mean(pair[which] for pair in third) for which in (0, 1) for third in steps]


def _cosines(race: str, seed: int) -> Iterator[tuple[int, tuple[float, float]]]:
    """For each update: (step, cosines with the full gradient of the aggregate and of the newest part)."""
    recipe = replace(course(race).recipe(CONTENDERS["aggregated"], BUDGET), seed=seed)
    experiment = build(Config(recipe, Settings(threads=1, compile="off")))
    experiment.model.train()
    state = None
    for step in range(BUDGET):
        for group in experiment.optimizer.param_groups:
            group["lr"] = experiment.schedule(step)
        for objective in experiment.regime.objectives(step):
            full = experiment.regime.risk_at(step).evaluate().gradient
            outcome = take_step(experiment.optimizer, objective, experiment.transform, state, step)
            state = outcome.transformed
            direction = torch.cat([p.grad.flatten() for p in experiment.space.parameters])  # type: ignore[union-attr]
            yield step, (_cosine(direction, full), _cosine(outcome.evaluation.gradient, full))


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return F.cosine_similarity(a.double(), b.double(), dim=0).item()


if __name__ == "__main__":
    main()
