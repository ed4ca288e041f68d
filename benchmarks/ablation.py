"""What each part of `aggregated` is worth: one thing replaced at a time, on held-out training images.

Makes the tables of docs/price.md: .venv/bin/python benchmarks/ablation.py --data mnist-5k --pixels 14 [--budget 60]
And what `aggregated`'s label smoothing is worth to others, with the settings that a race has chosen for them:
.venv/bin/python benchmarks/ablation.py --augment none --of sgd muon --choices benchmarks/choices/digits-noaug.json
No test image is asked: a run leaves a part of the training images out and is evaluated on them. The seeds are none
of a race's. What is there already is not computed again; a place with runs of another recipe is refused.
"""

from __future__ import annotations

import argparse
import inspect
import math
import os
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from noiseless.data import extent
from noiseless.optim import Muon, parse_options
from noiseless.run import earlier, ladder, processes
from noiseless.run.config import Settings
from noiseless.run.contenders import CONTENDERS, Course
from noiseless.run.ladder import Job
from noiseless.run.recipe import Recipe
from noiseless.run.work import passes_a_step

FIRST_SEED = 2000
CHANGES: dict[str, dict[str, Any]] = {
    "one part": {"parts": 1},
    "one part, lr 0.15, momentum 0.6": {"parts": 1, "lr": 0.15, "momentum": 0.6},
    "one part, lr 0.15, momentum 0.6, whitened": {
        "parts": 1, "lr": 0.15, "momentum": 0.6, "options": {"whiten": 1}, "input_moments": 4,
    },
    "one part, lr 0.15, momentum 0.6, orthogonal blocks": {
        "parts": 1, "lr": 0.15, "momentum": 0.6, "block_orthogonal": True, "block": 32,
    },
    "2 parts": {"parts": 2},
    "4 parts": {"parts": 4},
    "16 parts": {"parts": 16},
    "mini-batches of 48": {"regime": "stochastic", "parts": 1, "block": 48},
    "mini-batches of 48, momentum 0.6": {"regime": "stochastic", "parts": 1, "block": 48, "momentum": 0.6},
    "mini-batches of 96": {"regime": "stochastic", "parts": 1, "block": 96},
    "mini-batches of 96, momentum 0.6": {"regime": "stochastic", "parts": 1, "block": 96, "momentum": 0.6},
    "momentum 0.6": {"momentum": 0.6},
    "lr 0.015": {"lr": 0.015},
    "lr 0.06": {"lr": 0.06},
    "decay 0.01": {"weight_decay": 0.01},
    "decay 0.5": {"weight_decay": 0.5},
    "decay 2": {"weight_decay": 2.0},
    "head at the others' rate": {"options": {"last_lr_ratio": 1}},
    "whitened": {"options": {"whiten": 1}},
    "orthogonal blocks of 32": {"block_orthogonal": True, "block": 32},
    "norm block 16": {"norm_block": 16},
    "norm block 32": {"norm_block": 32},
    "blocks as they stand": {"shuffle": False},
    "warm-up of a tenth": {"warmup": 0.1},
    "constant rate": {"schedule": "constant"},
    "no label smoothing": {"label_smoothing": 0.0},
    "label smoothing 0.2": {"label_smoothing": 0.2},
    "average, momentum 0.8": {"ema": 0.8},
    "SAM 0.05, half the steps": {"sam": 0.05},
    "penalty 0.5, half the steps": {"penalty": 0.5},
    "AdamW": {
        "optimizer": "AdamW", "lr": 2e-3, "weight_decay": 1.0, "optimizer_options": "",
    },
    "Muon on hidden matrices only": {"options": {"last_lr_ratio": 1, "hidden_only": True}},
    "SGD, clipped": {
        "optimizer": "SGD", "lr": 0.2, "momentum": 0.9, "weight_decay": 5e-3, "clip": 0.25, "optimizer_options": "",
    },
}  # fmt: skip
"""fields of the recipe; `options` are some of its optimizer's. What the recipe has already is left out"""
MUON = inspect.signature(Muon).parameters
OTHERS: dict[str, dict[str, Any]] = {"label smoothing 0.1": {"label_smoothing": 0.1}}
"""what is tried in contenders that a race tunes"""


def main() -> None:
    """Runs what is missing and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--pixels", type=int)
    parser.add_argument("--augment", choices=("fresh", "none"), default="fresh")
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--validation", type=float, default=0.25, help="share of the training images left out")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--of", nargs="+", choices=list(CONTENDERS), default=["aggregated"])
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), help="what is replaced in aggregated; none: all")
    parser.add_argument("--choices", type=Path, help="choices.json of a race, for those of --of that it tunes")
    parser.add_argument("--tuned-at", type=int, default=60, help="budget at which that race has tuned them")
    asked = parser.parse_args()
    if asked.seeds < 2:
        parser.error("--seeds must be at least 2: a difference has no error else")
    course = Course(asked.data, extent(asked.data, None, asked.pixels), asked.pixels, augment=asked.augment == "fresh")
    chosen = earlier.read(asked.choices) if asked.choices else {}
    for name in asked.of:
        base = replace(course.recipe(CONTENDERS[name], asked.budget), validation=asked.validation)
        changes = OTHERS
        if CONTENDERS[name].size is None:
            changes = {what: made for what, made in CHANGES.items() if what in (asked.only or CHANGES)}
        elif taken := earlier.of(chosen, name, asked.tuned_at):
            base = replace(base, **taken["setting"])
        else:
            parser.error(f"{name} is tuned by a race: give the --choices of one")
        place = asked.runs / f"{asked.data}-{asked.pixels or 'full'}-{asked.augment}-{asked.budget}" / name
        _table(base, changes, place, range(FIRST_SEED, FIRST_SEED + asked.seeds))


def _table(base: Recipe, changes: dict[str, dict[str, Any]], place: Path, seeds: range) -> None:
    """Runs what is missing of a contender, and prints its table."""
    contender = place.name
    rows = {name: changed(base, change) for name, change in changes.items()}
    rows = {contender: base} | {name: made for name, made in rows.items() if made != base}
    jobs = {
        name: [Job(replace(recipe, name=name, seed=seed), place / name.replace(" ", "-") / str(seed)) for seed in seeds]
        for name, recipe in rows.items()
    }
    every = [job for each in jobs.values() for job in each]
    ladder.refuse_others(every)
    at_once = len(os.sched_getaffinity(0))
    settings = Settings(threads=1, evaluate_every=base.steps, keep=1)
    processes.execute(every, at_once, lambda job, row: None, lambda job, why: None, settings, command="ablation")
    print(
        f"{place.parent.name}, {len(seeds)} seeds: mean ± standard error of the difference to {contender}, seed by seed"
    )
    print("| replaced | accuracy % | difference | loss | difference | training loss |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, own in jobs.items():
        print(f"| {name} | {' | '.join(cells(own, jobs[contender]))} |", flush=True)


def changed(fast: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with something replaced; a warm-up is a share of the steps, of which the budget allows so many."""
    fields = {name: value for name, value in changes.items() if name != "options"}
    if "options" in changes:
        options = parse_options(fast.optimizer_options) | changes["options"]
        options = {name: value for name, value in options.items() if value != MUON[name].default}
        fields["optimizer_options"] = ",".join(f"{name}={value}" for name, value in options.items())
    made = replace(fast, **fields)
    made = replace(made, steps=int(fast.steps / passes_a_step(made)))
    return replace(made, warmup=round(made.warmup * made.steps)) if made.warmup else made


def cells(own: list[Job], fast: list[Job]) -> list[str]:
    """Means and paired differences of runs that have all ended."""
    if not all(job.finished for job in own):
        return ["not finite", *["-"] * 4]
    last, base = ([job.directory.rows()[-1] for job in jobs] for jobs in (own, fast))
    found = []
    for name, factor, digits in (("test_accuracy", 100, 2), ("test_loss", 1, 4)):
        values = [factor * row[name] for row in last]
        differences = [value - factor * row[name] for value, row in zip(values, base, strict=True)]
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        found.append(f"{statistics.mean(values):.{digits}f}")
        found.append("-" if own is fast else f"{statistics.mean(differences):+.{digits}f} ± {error:.{digits}f}")
    return [*found, f"{statistics.mean(row['train_loss'] for row in last):.4f}"]


if __name__ == "__main__":
    main()
