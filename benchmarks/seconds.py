"""Seconds of a pass: `aggregated` beside mini-batches, by this program and by a plain PyTorch loop, in turns.

Run it alone on the machine: .venv/bin/python benchmarks/seconds.py [--rounds 5]
Mini-batch contenders have the settings that the races have chosen. Writes benchmarks/results/price/seconds.json.
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
WHAT = "seconds of a pass of aggregated, and of others in its units: median (smallest to largest) of rounds in turns"
Pass = Callable[[int], None]
"""one pass over the training images, the step-th"""


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
    """`aggregated`, the mini-batch contenders by this program, and the same by a plain loop."""
    held = course(race)
    chosen = earlier.read(CHOICES / f"{race}.json")
    made: dict[str, Recipe] = {}
    for name in MINI_BATCH:
        taken = earlier.find(chosen, name, int(TUNED_AT.get(race, "60")))
        assert taken is not None
        made[name] = with_flags(held.recipe(CONTENDERS[name], BUDGET), **taken["setting"])
    fast = held.recipe(CONTENDERS["aggregated"], BUDGET)
    return [_ours(fast), *map(_ours, made.values()), *map(_plain, made.values())]


def _built(recipe: Recipe) -> Experiment:
    made = build(Config(recipe, Settings(threads=1)))
    made.model.train()
    for group in made.optimizer.param_groups:
        group["lr"] = recipe.optimizer.lr / 100  # it must not diverge, and moves as fast with any rate
    return made


def _ours(recipe: Recipe) -> Pass:
    made = _built(recipe)
    state: State | None = None

    def one(step: int) -> None:
        nonlocal state
        for objective in made.regime.objectives(step):
            state = take_step(made.optimizer, objective, made.transform, state, step).transformed

    return one


def _plain(recipe: Recipe) -> Pass:
    """What one writes in PyTorch: uncompiled, images augmented for the whole pass at once, as by this program."""
    made = _built(recipe)

    def one(step: int) -> None:
        order = keyed.permutation(0, "shuffle", step, len(made.train))
        images, labels = replace(made.train, epoch=step).take(order)
        for x, y in zip(images.split(recipe.objective.block), labels.split(recipe.objective.block), strict=True):
            made.optimizer.zero_grad()
            F.cross_entropy(made.model(x), y).backward()
            made.optimizer.step()

    return one


def _in_turns(sides: list[Pass], rounds: int) -> list[list[float]]:
    """Seconds of each side, round by round; the first round is not counted."""
    found: list[list[float]] = [[] for _ in sides]
    for step in range(rounds + 1):
        for side, seconds in zip(sides, found, strict=True):
            began = time.perf_counter()
            side(step)
            if step:
                seconds.append(time.perf_counter() - began)
    return found


def _spread(values: list[float], digits: int) -> str:
    """Median, smallest and largest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
