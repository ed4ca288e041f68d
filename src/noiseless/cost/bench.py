"""Times a recipe's sweeps beside those of a plain PyTorch loop on this machine.

Each side runs in a separate process, because a process keeps the memory that it frees. The two take turns, so that a
machine that slows down slows both.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Self

import torch
from torch import Tensor, nn

from noiseless.cost import plainloop
from noiseless.objective import EmpiricalRisk, GradientPenalty
from noiseless.recipes.config import Config
from noiseless.recipes.recipe import Recipe
from noiseless.run.build import Experiment, build
from noiseless.run.speed import keep_memory

STRENGTH = 0.5
"""strength of the gradient penalty in penalised sweeps"""
LONG = 1.0
"""seconds that a sweep of the plain loop takes at least, about; decides how many blocks it has"""

Sweep = Callable[[bool], float]
"""(penalised or not) -> seconds of one sweep, or another measured number"""
Make = Callable[[Config, int], Sweep]
"""(config, number of training images in a sweep, a multiple of the block) -> sweep"""


@dataclass(frozen=True)
class Comparison:
    """Times of one kind of sweep by both sides, round by round."""

    name: str
    """`risk` or `penalised`"""
    seconds: list[float]
    """times of this program's sweeps"""
    plain_seconds: list[float]
    """times of the plain loop's sweeps in the same rounds"""


class Side:
    """A process that runs the sweeps of one side. Leaving the context ends the process.

    Args:
        make: called in that process with the next two arguments; returns the function that runs a sweep.
        config: of the run.
        images: number of training images in a sweep, a multiple of the block.
    """

    def __init__(self, make: Make, config: Config, images: int):
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, config, images), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._ours.send(None)
        self._process.join(10)
        self._process.kill()

    def turn(self, penalised: bool) -> float:
        """Runs one sweep in the process.

        Args:
            penalised: whether the sweep has a gradient penalty.

        Returns:
            The number that the sweep returned, seconds for most.

        Raises:
            ValueError: if the sweep failed or the process has ended.
        """
        try:
            self._ours.send(penalised)
            answer: float | str = self._ours.recv()
        except (EOFError, BrokenPipeError):
            raise ValueError("a process of the measurement has ended (out of memory?); try a smaller --block") from None
        if isinstance(answer, str):
            raise ValueError(answer)
        return answer


def compare(config: Config, rounds: int) -> tuple[int, list[Comparison]]:
    """Times sweeps of both sides in turns.

    Args:
        config: of the run.
        rounds: number of timed sweeps of each kind; one more before them is not timed.

    Returns:
        Number of images in a sweep, and the times of risk and penalised sweeps.

    Raises:
        ValueError: if there are fewer training images than one block has.
    """
    block = config.recipe.objective.block
    available = len(build(replace(config, settings=replace(config.settings, compile="off"))).train)
    if available < block:
        raise ValueError(
            f"there are {available} training images, fewer than one block of {block}: give a smaller --block"
        )
    with Side(plain, config, block) as side:
        side.turn(False)
        blocks = max(1, round(LONG / side.turn(False)))
    images = block * min(blocks, available // block)
    comparisons = {penalised: Comparison("penalised" if penalised else "risk", [], []) for penalised in (False, True)}
    with Side(ours, config, images) as mine, Side(plain, config, images) as theirs:
        for side in (mine, theirs):  # compiles, allocates
            for penalised in comparisons:
                side.turn(penalised)
        for _ in range(rounds):
            for penalised, times in comparisons.items():
                times.plain_seconds.append(theirs.turn(penalised))
                times.seconds.append(mine.turn(penalised))
    return images, list(comparisons.values())


def ours(config: Config, images: int) -> Sweep:
    """Builds the sweeps of this program, as in a run."""
    keep_memory()
    experiment = build(config)
    experiment.model.train()

    def sweep(penalised: bool) -> float:
        objective = objective_over(experiment, images, penalised)
        began = time.perf_counter()
        objective.evaluate()
        wait()
        return time.perf_counter() - began

    return sweep


def objective_over(experiment: Experiment, images: int, penalised: bool) -> EmpiricalRisk | GradientPenalty:
    """The risk over the first `images` training images in the order of step 0, penalised or not."""
    risk = experiment.regime.risk_at(0)
    risk = risk.at(risk.selection.head(images))
    return GradientPenalty(risk, STRENGTH, lr=experiment.config.recipe.optimizer.lr) if penalised else risk


def plain(config: Config, images: int) -> Sweep:
    """Builds the sweeps of the plain loop: uncompiled, without autocast, the blocks ready in memory."""
    experiment = build(replace(config, settings=replace(config.settings, compile="off")))
    x, y = experiment.train.take(torch.arange(images))
    return plain_sweeps(experiment.model.train(), x, y, experiment.config.recipe)


def plain_sweeps(model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe) -> Sweep:
    """Builds the sweeps of a plain loop over given images.

    Args:
        model: in training mode.
        x: images `[n, C, H, W]`.
        y: labels `[n]`.
        recipe: its block, and the learning rate and probe length of the penalty, are used.

    Returns:
        (penalised or not) -> seconds of a sweep.
    """
    blocks = list(zip(x.split(recipe.objective.block), y.split(recipe.objective.block), strict=True))

    def sweep(penalised: bool) -> float:
        began = time.perf_counter()
        if penalised:
            plainloop.penalised(model, blocks, recipe.optimizer.lr / 4 * STRENGTH, recipe.objective.penalty_eps)
        else:
            plainloop.risk(model, blocks)
        wait()
        return time.perf_counter() - began

    return sweep


def wait() -> None:
    """Waits until the GPU has finished its work, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _serve(connection: Connection, make: Make, config: Config, images: int) -> None:
    """Runs sweeps in the process of a `Side` until None is received: a message, penalised or not, for each sweep."""
    sweep: Sweep | None = None
    while True:
        try:
            penalised = connection.recv()
        except EOFError:
            return
        if penalised is None:
            return
        try:
            sweep = sweep or make(config, images)
            connection.send(sweep(penalised))
        except (ValueError, RuntimeError) as error:
            connection.send(str(error))
