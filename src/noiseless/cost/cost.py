"""What a run will cost in seconds, from a short measurement of its own objective."""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from noiseless.files.checkpoint import save
from noiseless.objective import Objective, parameter_space, risk_of
from noiseless.optim import line_search, take_step
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.run.build import Experiment, build
from noiseless.run.evaluate import BATCH, score
from noiseless.run.speed import keep_memory
from noiseless.run.updates import make_optimizer, make_transform

SECONDS = 0.15
"""of measuring each part, at least, unless it is asked so often before:"""
MOST = 100
CHUNKS = 4
"""of the longer one of two sweeps, whose difference tells what a chunk takes"""


@dataclass(frozen=True)
class Measured:
    """Times of this machine, as this process stands."""

    step: float
    """seconds of a step"""
    evaluation: float
    """seconds of an evaluation on the test images"""
    fixed: float = 0.0
    """seconds of the step that do not belong to a block: the objectives, the sum's value, the update"""
    checkpoint: float = 0.0
    """seconds of writing a checkpoint"""


def seconds(recipe: Recipe, settings: Settings, measured: Measured) -> float:
    """How long a run will take on this machine.

    Args:
        recipe: of the run.
        settings: of the run, resolved or not.
        measured: of a run whose steps do the same work.

    Returns:
        Seconds from the first step to the last.
    """
    found = recipe.schedule.steps * measured.step + evaluations(recipe, settings) * measured.evaluation
    return found + checkpoints(recipe, settings, found) * measured.checkpoint


def evaluations(recipe: Recipe, settings: Settings) -> int:
    """How often a run evaluates; where the settings leave it open, ten times."""
    return -(-recipe.schedule.steps // (settings.evaluate_every or max(1, recipe.schedule.steps // 10)))


def checkpoints(recipe: Recipe, settings: Settings, seconds: float) -> int:
    """How many a run of so many seconds writes: before the first step, after the last, and from time to time."""
    between = int(seconds / settings.checkpoint_seconds) if settings.checkpoint_seconds else recipe.schedule.steps
    return min(2 + between, recipe.schedule.steps + 1)


def alike(recipe: Recipe) -> Recipe:
    """The recipe without what does not matter to a step's time: rows with the same value are measured once."""
    schedule = {"name": "", "seed": 0, "steps": 1, "lr": 1.0, "warmup": 0, "horizon": None, "schedule": "constant"}
    return with_flags(recipe, **schedule, clip=None, penalty=float(recipe.objective.penalty > 0))


def measure(experiment: Experiment, least: float = SECONDS) -> Measured:
    """Times a step and an evaluation.

    The objective of step 0 is asked on its first chunk of blocks and, where that is quick, on its first few, so that
    what a sweep costs apart from its chunks is not counted with each of them. Both are asked again and again, in turn,
    and so are the evaluation on test images and the update of a copy; all is scaled to the whole. In the stochastic
    regime, updates are made one after the other. In the end, nothing of the experiment is changed.

    Args:
        experiment: built for this machine.
        least: seconds of measuring each part of a step.

    Returns:
        The seconds.
    """
    experiment.model.train()
    update, checkpoint = _update(experiment)
    if experiment.config.recipe.objective.regime == "stochastic":
        step, fixed = _stochastic(experiment, least), 0.0
    else:
        step, fixed = _sweep(experiment, least)
        updates = experiment.config.recipe.objective.parts
        step, fixed = step + updates * update, fixed + updates * update
    tested = experiment.test.only(torch.arange(min(BATCH, len(experiment.test))))
    flips = experiment.config.recipe.evaluation.test_flips
    (evaluation,) = _means(lambda: score(experiment.model, tested, flips), least=least / 2)
    return Measured(step, evaluation * len(experiment.test) / len(tested), fixed, checkpoint)


def measure_beside(config: Config, processes: int, least: float = SECONDS) -> Measured:
    """Times a step in several processes at once, which share caches and memory as workers do.

    Args:
        config: of the run.
        processes: how many.
        least: see `measure`.

    Returns:
        The seconds of the slowest: the others would wait for it.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=keep_memory) as pool:
        return max(pool.map(_measured, [config] * processes, [least] * processes), key=lambda found: found.step)


def _measured(config: Config, least: float) -> Measured:
    return measure(build(config), least)


def _sweep(experiment: Experiment, least: float) -> tuple[float, float]:
    """Seconds of a step's evaluation over the full batch, and those of them that do not belong to a block."""
    recipe, chosen = experiment.config.recipe, experiment.config.recipe.objective
    examples = len(experiment.train) * max(1, recipe.data.copies) * chosen.max_up // chosen.parts  # of a sweep
    one = min(chosen.block * (experiment.config.settings.chunk or 1), examples)
    few = min(CHUNKS * one, examples // one * one)
    began = time.perf_counter()
    objective = next(iter(experiment.regime.objectives(chosen.switch)))
    made = time.perf_counter() - began
    part = _first(objective, one)
    alone = a_chunk = _means(part.evaluate, least=0)[0]
    if few == one and 2 * alone < least:
        alone = a_chunk = _means(part.evaluate, least=least)[0]
    elif few > one and alone < least:
        alone, together = _means(part.evaluate, _first(objective, few).evaluate, least=least)
        a_chunk = min(max((together - alone) / (few // one - 1), 0.0) or alone, alone)
    fixed = made + chosen.parts * (alone - a_chunk)
    return fixed + chosen.parts * a_chunk * examples / one, fixed


def _stochastic(experiment: Experiment, least: float) -> float:
    """Seconds of a step: those of its updates, which are taken back afterwards."""
    recipe, model, optimizer = experiment.config.recipe, experiment.model, experiment.optimizer
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    updates = -(-len(experiment.train) * recipe.objective.max_up // recipe.objective.block)
    found: list[float] = []
    state = None
    while sum(found[1:]) < least and len(found) <= updates:
        objectives = iter(experiment.regime.objectives(0))
        began = time.perf_counter()
        for objective in objectives:
            state = take_step(optimizer, objective, experiment.transform, state, 0).transformed
            found.append(time.perf_counter() - began)
            if sum(found[1:]) >= least:
                break
            began = time.perf_counter()
    model.load_state_dict(before[0])
    optimizer.load_state_dict(before[1])
    later = found[1:] or found  # the first one also allocates
    return updates * sum(later) / len(later)


def _update(experiment: Experiment) -> tuple[float, float]:
    """Seconds in which a copy of the model is moved by a gradient of its own size, and those of a checkpoint of it."""
    model = copy.deepcopy(experiment.model)
    space = parameter_space(model)
    recipe = experiment.config.recipe
    optimizer = make_optimizer(recipe, model)
    transform = make_transform(recipe, space, experiment.schedule, len(experiment.train))
    state = transform.init(space.theta) if transform else {}
    gradient = space.theta.detach().clone()
    for _ in range(recipe.objective.parts if transform else 0):  # until it knows all parts
        state = transform.update(gradient, state, space.theta, 0)[1]  # type: ignore[union-attr]

    def closure() -> Tensor:
        changed = transform.update(gradient, state, space.theta, 0)[0] if transform else gradient
        space.set_gradient(changed)
        return torch.zeros(())

    update = 0.0  # of a line search, it is that of the sweeps that it asks for
    if not line_search(optimizer):
        (update,) = _means(lambda: optimizer.step(closure), least=0.05)  # type: ignore[arg-type]
    whole = {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict(), "transforms": state}
    with TemporaryDirectory(prefix="noiseless-") as place:
        began = time.perf_counter()
        save(Path(place), 0, whole, 1)
        return update, time.perf_counter() - began


def _first(objective: Objective, count: int) -> Objective:
    """The same objective over its first examples."""
    risk = risk_of(objective)
    return objective.over(risk.at(risk.selection.head(count)))


def _means(*asks: Callable[[], object], least: float) -> list[float]:
    """Mean seconds of each, asked in turn, so that a machine that slows down is no difference between them."""
    for ask in asks:
        ask()  # the first one also allocates
    found: list[list[float]] = [[] for _ in asks]
    while not found[0] or (sum(map(sum, found)) < least * len(asks) and len(found[0]) < MOST):
        for ask, seconds in zip(asks, found, strict=True):
            began = time.perf_counter()
            ask()
            seconds.append(time.perf_counter() - began)
    return [sum(each) / len(each) for each in found]
