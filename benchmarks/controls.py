"""Controls of `aggregated`: how much of its accuracy is due to parts, re-cut blocks and regularisers.

.venv/bin/python benchmarks/controls.py [--runs DIR] [--seeds 5]
Digits without augmentation, 60 passes, one thread a run, one run at a time, about 20 minutes. Finished runs are kept,
so the same command continues after a stop. Writes benchmarks/results/price/controls.json and prints tables.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from price import CHOICES, course, load, provenance, save
from torch import Tensor

from noiseless.optim import take_step
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import flag_value, with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.report.price import lines
from noiseless.report.summary import spread
from noiseless.run.build import build
from noiseless.run.regimes import Regime
from noiseless.study import earlier, processes, reproduce
from noiseless.study.contenders import CONTENDERS
from noiseless.study.reproduce import Job

RACE, BUDGET = "digits-noaug", 60
PASSES = (5, 15, 30, 45, 58)
"""passes of a run after which the noise of re-cutting is measured"""
CUTS = 16
"""number of cuts of the blocks over which that noise is measured"""


def main() -> None:
    """Executes the missing runs, measures the noise, writes the file and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/controls"))
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error("--seeds must be at least 2, for a standard deviation")
    seeds = range(args.seeds)
    args.runs.mkdir(parents=True, exist_ok=True)
    print("noise of re-cutting", flush=True)
    noise = [saved_noise(replace(recipes()["aggregated"], seed=seed), args.runs) for seed in seeds]
    jobs = {
        name: [Job(replace(recipe, name=name, seed=seed), args.runs / name / f"seed{seed}") for seed in seeds]
        for name, recipe in recipes().items()
    }
    reproduce.refuse_others([job for seed_jobs in jobs.values() for job in seed_jobs])
    settings = Settings(threads=1, evaluate_every=BUDGET, keep=1)
    for name, seed_jobs in jobs.items():
        print(name, flush=True)
        processes.execute(seed_jobs, 1, lambda job, row: None, _refuse_failure, settings, command="controls")
    last = {name: [job.directory.rows()[-1] for job in seed_jobs] for name, seed_jobs in jobs.items()}
    rows = [
        {
            "control": name,
            **{key: [row[key] for row in seed_rows] for key in ("test_accuracy", "test_loss", "train_loss")},
        }
        for name, seed_rows in last.items()
    ]
    save("controls", {
        "command": f"benchmarks/controls.py --seeds {args.seeds}",
        **provenance(),
        "what": f"digits without augmentation, {BUDGET} passes; lists are by seed, from 0 on",
        "rows": rows,
        "noise to signal": "s / sqrt(|m|^2 - s^2 / C) of the C cuts' full gradients g_c at the same parameters:"
        " m their mean, s^2 = sum_c |g_c - m|^2 / (C - 1)",
        "cuts": CUTS,
        "noise": [
            {"passes": passes, "ratio": list(ratios)}
            for passes, *ratios in zip(PASSES, *noise, strict=True)
        ],
    })  # fmt: skip
    print(tables(load("controls")))


def recipes() -> dict[str, Recipe]:
    """The controls by name: `aggregated`, variants of it with one thing replaced, and Muon as a race has tuned it."""
    aggregated = course(RACE).recipe(CONTENDERS["aggregated"], BUDGET)
    chosen = earlier.find(earlier.read(CHOICES / f"{RACE}.json"), "muon", BUDGET)
    assert chosen is not None
    muon = with_flags(course(RACE).recipe(CONTENDERS["muon"], BUDGET), **chosen["setting"])
    like = ("label_smoothing", "weight_decay", "norm_block", "optimizer_options")
    return {
        "aggregated": aggregated,
        "aggregated, blocks cut once": with_flags(aggregated, shuffle=False),
        "mini-batches of 64, momentum 0.6": with_flags(
            aggregated, regime="stochastic", parts=1, block=64, momentum=0.6
        ),
        "tuned Muon": muon,
        "tuned Muon, regularised like aggregated": with_flags(muon, **{n: flag_value(aggregated, n) for n in like}),
    }  # fmt: skip


def saved_noise(recipe: Recipe, runs: Path) -> list[float]:
    """`recut_noise`, read from a file in the directory of the runs if it was measured before."""
    path = runs / f"noise-seed{recipe.seed}.json"
    if not path.exists():
        path.write_text(json.dumps(recut_noise(recipe)))
    ratios: list[float] = json.loads(path.read_text())
    return ratios


def recut_noise(recipe: Recipe) -> list[float]:
    """Noise to signal of the full gradient over cuts of batch norm's blocks, after each of `PASSES` of a run."""
    experiment = build(Config(recipe, Settings(threads=1, compile="off")))
    experiment.model.train()
    state = None
    ratios = []
    for step in range(max(PASSES) + 1):
        if step in PASSES:
            steps = recipe.schedule.steps
            later = range(steps, steps + CUTS)  # steps after the end, whose cuts the run has not used
            ratios.append(noise_to_signal([_full_gradient(experiment.regime, at) for at in later]))
        for group in experiment.optimizer.param_groups:
            group["lr"] = experiment.schedule(step)
        for objective in experiment.regime.objectives(step):
            state = take_step(experiment.optimizer, objective, experiment.transform, state, step).transformed
    return ratios


def _full_gradient(regime: Regime, step: int) -> Tensor:
    """Mean gradient over all parts with the blocks of a step, at the current parameters, `[P]` in float64."""
    parts = [objective.evaluate() for objective in regime.objectives(step)]
    weighted = [part.gradient.double() * part.count for part in parts]
    return torch.stack(weighted).sum(0) / sum(part.count for part in parts)


def noise_to_signal(gradients: Sequence[Tensor]) -> float:
    """Ratio of the RMS distance of gradients from their mean to the norm of the mean.

    Args:
        gradients: at the same parameters, `[P]` each, at least two.

    Returns:
        `s / sqrt(|m|^2 - s^2 / C)` with the mean m of the C gradients and `s^2 = sum_c |g_c - m|^2 / (C - 1)`: `|m|^2`
        exceeds the true mean's square by `s^2 / C` on average. Infinite where the difference is not positive.
    """
    stacked = torch.stack(list(gradients))
    average = stacked.mean(0)
    variance = ((stacked - average).square().sum() / (len(stacked) - 1)).item()
    signal = average.square().sum().item() - variance / len(stacked)
    return math.sqrt(variance / signal) if signal > 0 else math.inf


def tables(results: Mapping[str, Any]) -> str:
    """Both tables in Markdown, with mean ± sample standard deviation over seeds."""
    rows = [
        [row["control"], spread([100 * x for x in row["test_accuracy"]], 2), spread(row["test_loss"], 3),
         spread(row["train_loss"], 3)]
        for row in results["rows"]
    ]  # fmt: skip
    noise = [[str(row["passes"]), spread(row["ratio"], 2)] for row in results["noise"]]
    heads = ["control", "test accuracy %", "test loss", "training loss"]
    return "\n".join([*lines(heads, rows), "", *lines(["after passes", "noise / signal"], noise)])


def _refuse_failure(job: Job, why: str | None) -> None:
    if why is not None:
        raise ValueError(f"{job.title}: {why}")


if __name__ == "__main__":
    main()
