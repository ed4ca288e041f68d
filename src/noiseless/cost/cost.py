"""Predicts the seconds of a run from a short measurement of its step on this machine."""

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
from noiseless.run import prepared
from noiseless.run.build import Experiment, build
from noiseless.run.evaluate import BATCH, score
from noiseless.run.speed import keep_memory
from noiseless.run.updates import make_optimizer, make_transform

SECONDS = 0.15
"""default time spent on measuring each part of a step, in seconds"""
MAX_CALLS = 100
"""calls of a part after which its measurement ends, even before that time"""
CHUNKS = 4
"""number of chunks in the longer of two timed sweeps; the shorter has one chunk, and the difference gives the seconds
of a chunk"""


@dataclass(frozen=True)
class Measured:
    """Measured times of a run's step, evaluation and checkpoint in this process."""

    step: float
    """seconds of a step"""
    evaluation: float
    """seconds of an evaluation on the test images"""
    fixed: float = 0.0
    """seconds of the step that do not depend on the number of blocks: objectives, the sum's value, the update"""
    checkpoint: float = 0.0
    """seconds of writing a checkpoint"""


def seconds(recipe: Recipe, settings: Settings, measured: Measured) -> float:
    """Predicts how long a run will take on this machine.

    Args:
        recipe: of the run.
        settings: of the run, resolved or not.
        measured: times of a run whose steps do the same work.

    Returns:
        Seconds from the first step to the last.
    """
    computing = recipe.schedule.steps * measured.step + evaluations(recipe, settings) * measured.evaluation
    return computing + checkpoints(recipe, settings, computing) * measured.checkpoint


def evaluations(recipe: Recipe, settings: Settings) -> int:
    """Number of evaluations in a run; about ten where the settings do not say."""
    return -(-recipe.schedule.steps // (settings.evaluate_every or max(1, recipe.schedule.steps // 10)))


def checkpoints(recipe: Recipe, settings: Settings, seconds: float) -> int:
    """Number of checkpoints in a run of that many seconds: before the first step, in between, and after the last."""
    steps = recipe.schedule.steps
    between = seconds / settings.checkpoint_seconds if settings.checkpoint_seconds else steps
    return min(2 + int(min(between, steps)), steps + 1)


def timing_key(recipe: Recipe) -> Recipe:
    """The recipe with all fields that do not affect the time of a step set to fixed values.

    Recipes with equal keys have equally long steps, so that one measurement serves them all.

    Args:
        recipe: of a run.

    Returns:
        The key.
    """
    schedule = {"name": "", "seed": 0, "steps": 1, "lr": 1.0, "warmup": 0, "horizon": None, "schedule": "constant"}
    return with_flags(recipe, **schedule, clip=None, penalty=float(recipe.objective.penalty > 0))


def measure(experiment: Experiment, least: float = SECONDS) -> Measured:
    """Times a step, an evaluation and a checkpoint; the experiment is left unchanged.

    The objective of step 0 is evaluated on its first chunk of blocks and, where that is quick, also on its first few
    chunks. The difference separates the seconds of a chunk from those that a sweep costs whatever its size. Both are
    evaluated repeatedly, in turns, and scaled to all examples. The update is timed on a copy of the model, the
    evaluation on a batch of test images. In the stochastic regime, consecutive updates are timed and then undone.

    Args:
        experiment: built for this machine.
        least: seconds of measuring each part of a step.

    Returns:
        The measured times.
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
    loss, flips = experiment.test_loss, experiment.config.recipe.evaluation.test_flips
    (evaluation,) = _means(lambda: score(experiment.model, tested, flips, loss), least=least / 2)
    return Measured(step, evaluation * len(experiment.test) / len(tested), fixed, checkpoint)


def measure_beside(config: Config, processes: int, least: float = SECONDS) -> Measured:
    """Times a step in several processes at once, which share caches and memory as workers do.

    Args:
        config: of the run.
        processes: number of processes.
        least: see `measure`.

    Returns:
        The times of the process with the slowest step, for which the others would wait.
    """
    prepared.start()
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, context, initializer=_start) as pool:
        return max(
            pool.map(_build_and_measure, [config] * processes, [least] * processes), key=lambda times: times.step
        )


def _start() -> None:
    """Initialises a process that measures, as those of workers."""
    prepared.take_signals()
    keep_memory()


def _build_and_measure(config: Config, least: float) -> Measured:
    return measure(build(config), least)


def _sweep(experiment: Experiment, least: float) -> tuple[float, float]:
    """Seconds of a full-batch step without its update, and how many of them do not depend on the number of blocks."""
    recipe, spec = experiment.config.recipe, experiment.config.recipe.objective
    examples = len(experiment.train) * max(1, recipe.data.copies) * spec.max_up // spec.parts  # of a sweep
    chunk_examples = min(spec.block * (experiment.config.settings.chunk or 1), examples)
    several = min(CHUNKS * chunk_examples, examples // chunk_examples * chunk_examples)
    began = time.perf_counter()
    objective = next(iter(experiment.regime.objectives(spec.switch)))
    setup = time.perf_counter() - began
    first_chunk = _first(objective, chunk_examples)
    sweep = chunk_seconds = _means(first_chunk.evaluate, least=0)[0]
    if several == chunk_examples and 2 * sweep < least:
        sweep = chunk_seconds = _means(first_chunk.evaluate, least=least)[0]
    elif several > chunk_examples and sweep < least:
        sweep, longer = _means(first_chunk.evaluate, _first(objective, several).evaluate, least=least)
        chunk_seconds = min(max((longer - sweep) / (several // chunk_examples - 1), 0.0) or sweep, sweep)
    fixed = setup + spec.parts * (sweep - chunk_seconds)
    return fixed + spec.parts * chunk_seconds * examples / chunk_examples, fixed


def _stochastic(experiment: Experiment, least: float) -> float:
    """Seconds of a step in the stochastic regime, from its first updates, which are undone afterwards."""
    recipe, model, optimizer = experiment.config.recipe, experiment.model, experiment.optimizer
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    updates = -(-len(experiment.train) * recipe.objective.max_up // recipe.objective.block)
    seconds: list[float] = []
    state = None
    while sum(seconds[1:]) < least and len(seconds) <= updates:
        objectives = iter(experiment.regime.objectives(0))
        began = time.perf_counter()
        for objective in objectives:
            state = take_step(optimizer, objective, experiment.transform, state, 0).transformed
            seconds.append(time.perf_counter() - began)
            if sum(seconds[1:]) >= least:
                break
            began = time.perf_counter()
    model.load_state_dict(before[0])
    optimizer.load_state_dict(before[1])
    timed = seconds[1:] or seconds  # the first one also allocates
    return updates * sum(timed) / len(timed)


def _update(experiment: Experiment) -> tuple[float, float]:
    """Seconds of an update of a copy of the model, transforms and optimizer, and seconds of writing a checkpoint."""
    model = copy.deepcopy(experiment.model)
    space = parameter_space(model)
    recipe = experiment.config.recipe
    optimizer = make_optimizer(recipe, model)
    transform = make_transform(recipe, space, experiment.schedule, len(experiment.train))
    state = transform.init(space.theta) if transform else {}
    gradient = space.theta.detach().clone()
    for _ in range(recipe.objective.parts if transform else 0):  # until its state has a gradient of every part
        state = transform.update(gradient, state, space.theta, 0)[1]  # type: ignore[union-attr]

    def closure() -> Tensor:
        changed = transform.update(gradient, state, space.theta, 0)[0] if transform else gradient
        space.set_gradient(changed)
        return torch.zeros(())

    update = 0.0  # 0 for a line search: its evaluations are timed as sweeps
    if not line_search(optimizer):
        (update,) = _means(lambda: optimizer.step(closure), least=0.05)  # type: ignore[arg-type]
    state_dicts = {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict(), "transforms": state}
    with TemporaryDirectory(prefix="noiseless-") as place:
        began = time.perf_counter()
        save(Path(place), 0, state_dicts, 1)
        return update, time.perf_counter() - began


def _first(objective: Objective, count: int) -> Objective:
    """A copy of the objective over the first `count` examples."""
    risk = risk_of(objective)
    return objective.over(risk.at(risk.selection.head(count)))


def _means(*calls: Callable[[], object], least: float) -> list[float]:
    """Mean seconds of each call. Calls take turns, so that a machine that slows down affects all of them equally."""
    for call in calls:
        call()  # the first one also allocates
    seconds: list[list[float]] = [[] for _ in calls]
    while not seconds[0] or (sum(map(sum, seconds)) < least * len(calls) and len(seconds[0]) < MAX_CALLS):
        for call, its_seconds in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            call()
            its_seconds.append(time.perf_counter() - began)
    return [sum(times) / len(times) for times in seconds]
