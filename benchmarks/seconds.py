"""Times a pass of `aggregated` beside mini-batch optimizers, by this program and by a plain PyTorch loop, in turns.

Run it alone on the machine: .venv/bin/python benchmarks/seconds.py [--rounds 5]
Mini-batch optimizers have the settings that were chosen in the races. Writes benchmarks/results/price/seconds.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch.nn.functional as F
from price import CHOICES, RACES, TUNED_AT, course, provenance, save, title

from noiseless import keyed
from noiseless.optim import take_step
from noiseless.optim.transforms import State
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.run.build import Experiment, build
from noiseless.study import earlier
from noiseless.study.contenders import CONTENDERS

BUDGET = 60
MINI_BATCH = ("sgd", "adamw", "muon")
"""mini-batch contenders that are timed"""
WHAT = "seconds of a pass of aggregated, and of others in its units: median (smallest to largest) of rounds in turns"
Pass = Callable[[int], None]
"""(step) -> None: one pass over the training images"""


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    names = [*MINI_BATCH, *(f"{name}, plain loop" for name in MINI_BATCH)]
    rows = []
    for race in RACES:
        ours, *others = _in_turns(_sides(race), rounds)
        ratios = [[seconds / its for seconds, its in zip(other, ours, strict=True)] for other in others]
        cells = [_spread(ours, 3), *(_spread(values, 2) for values in ratios)]
        rows.append({"set": title(race), **dict(zip(["aggregated, s", *names], cells, strict=True))})
        print(rows[-1], flush=True)
    save("seconds", {"command": f"benchmarks/seconds.py --rounds {rounds}", **provenance(), "what": WHAT, "rows": rows})


def _sides(race: str) -> list[Pass]:
    """Passes of `aggregated`, of the mini-batch contenders by this program, and of the same by a plain loop."""
    race_course = course(race)
    choices = earlier.read(CHOICES / f"{race}.json")
    recipes: dict[str, Recipe] = {}
    for name in MINI_BATCH:
        choice = earlier.find(choices, name, int(TUNED_AT.get(race, "60")))
        assert choice is not None
        recipes[name] = with_flags(race_course.recipe(CONTENDERS[name], BUDGET), **choice["setting"])
    aggregated = race_course.recipe(CONTENDERS["aggregated"], BUDGET)
    return [_ours(aggregated), *map(_ours, recipes.values()), *map(_plain, recipes.values())]


def _built(recipe: Recipe) -> Experiment:
    """Builds an experiment with a small learning rate, so that it cannot diverge; the rate does not affect the time."""
    experiment = build(Config(recipe, Settings(threads=1)))
    experiment.model.train()
    for group in experiment.optimizer.param_groups:
        group["lr"] = recipe.optimizer.lr / 100
    return experiment


def _ours(recipe: Recipe) -> Pass:
    """Passes by this program."""
    experiment = _built(recipe)
    state: State | None = None

    def one(step: int) -> None:
        nonlocal state
        for objective in experiment.regime.objectives(step):
            state = take_step(experiment.optimizer, objective, experiment.transform, state, step).transformed

    return one


def _plain(recipe: Recipe) -> Pass:
    """Passes by a plain PyTorch loop: uncompiled; images are augmented for a whole pass at once, as by this program."""
    experiment = _built(recipe)

    def one(step: int) -> None:
        order = keyed.permutation(0, "shuffle", step, len(experiment.train))
        images, labels = replace(experiment.train, epoch=step).take(order)
        for x, y in zip(images.split(recipe.objective.block), labels.split(recipe.objective.block), strict=True):
            experiment.optimizer.zero_grad()
            F.cross_entropy(experiment.model(x), y).backward()
            experiment.optimizer.step()

    return one


def _in_turns(sides: list[Pass], rounds: int) -> list[list[float]]:
    """Seconds of each side, round by round; the first round is not counted."""
    seconds: list[list[float]] = [[] for _ in sides]
    for step in range(rounds + 1):
        for side, its_seconds in zip(sides, seconds, strict=True):
            began = time.perf_counter()
            side(step)
            if step:
                its_seconds.append(time.perf_counter() - began)
    return seconds


def _spread(values: list[float], digits: int) -> str:
    """Median, smallest and largest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
