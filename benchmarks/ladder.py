"""Times the digits ladder by `noiseless reproduce` beside the same rows in a plain PyTorch loop.

Run it alone on the machine: .venv/bin/python benchmarks/ladder.py [--seeds 3] [--threads 2]
The plain loop is one process, uncompiled, one block after the other, with images augmented by the same function; the
program uses the cores by its defaults. The times of both include the start of the process; both take turns.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import torch
from torch import nn

from noiseless.cost import plainloop
from noiseless.data import Images
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.ladder import LADDER, row
from noiseless.run.build import Experiment, build


def main() -> None:
    """Prints the seconds of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain", type=int, metavar="SEED", help="only the plain loop of a seed, in this process")
    args = parser.parse_args()
    if args.plain is not None:
        for name in LADDER:
            _train(name, args.plain, args.threads)
        return
    ours, plain = [], []
    for seed in range(args.seeds):  # the plain loop before, between and after, as machines change their speed
        plain.append(_seconds([__file__, "--plain", str(seed), "--threads", str(args.threads)]))
        if seed < max(1, args.seeds - 1):
            with tempfile.TemporaryDirectory() as place:
                runs = ["-m", "noiseless", "reproduce", "--seeds", str(args.seeds), "--run-dir", f"{place}/runs"]
                ours.append(_seconds(runs))
    mine = sum(ours) / len(ours)
    print(
        f"noiseless reproduce --seeds {args.seeds}: {', '.join(f'{seconds:.0f}' for seconds in ours)} s; plain loop, by"
        f" seed: {', '.join(f'{seconds:.0f}' for seconds in plain)} s; ratio {sum(plain) / mine:.2f}"
    )


def _seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)  # noqa: S603
    seconds = time.perf_counter() - began
    print(f"{'plain loop, a seed' if '--plain' in arguments else 'noiseless reproduce'}: {seconds:.0f} s", flush=True)
    return seconds


def _train(name: str, seed: int, threads: int) -> None:
    """Trains a row of the ladder in a plain loop."""
    recipe = row(name)
    experiment = build(Config(recipe, Settings(threads=threads, compile="off")))
    model = experiment.model.train()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=recipe.optimizer.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for step in range(recipe.schedule.steps):
        order = _order(
            recipe.objective.shuffle or recipe.objective.regime == "stochastic", len(experiment.train), seed, step
        )
        x, y = _at(experiment.train, step).take(order)
        blocks = list(zip(x.split(recipe.objective.block), y.split(recipe.objective.block), strict=True))
        for group in optimizer.param_groups:
            group["lr"] = experiment.schedule(step)
        for part in [[block] for block in blocks] if recipe.objective.regime == "stochastic" else [blocks]:
            if recipe.objective.penalty:
                strength = experiment.schedule(step) / 4 * recipe.objective.penalty
                plainloop.penalised(model, part, strength, recipe.objective.penalty_eps)
            else:
                plainloop.risk(model, part)
            if recipe.transforms.clip:
                nn.utils.clip_grad_norm_(parameters, recipe.transforms.clip)
            optimizer.step()
        if (step + 1) % max(1, recipe.schedule.steps // 10) == 0:
            _accuracy(experiment)


def _at(train: Images, step: int) -> Images:
    return replace(train, epoch=step)


def _order(shuffled: bool, count: int, seed: int, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + step)
    return torch.randperm(count, generator=generator) if shuffled else torch.arange(count)


def _accuracy(experiment: Experiment) -> float:
    experiment.model.eval()
    x, y = experiment.test.take(torch.arange(len(experiment.test)))
    with torch.no_grad():
        hits = (experiment.model(x).argmax(1) == y).double().mean().item()
    experiment.model.train()
    return hits


if __name__ == "__main__":
    main()
