"""The noise that a run's updates really had: the spread of an update's gradient over draws, at states of the run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from noiseless.analysis import check_blocks, gradient_draws, gradient_noise
from noiseless.ask.precision import EXACT
from noiseless.ask.state import RunState, load_state
from noiseless.files import drawn
from noiseless.files.address import StateAddress
from noiseless.files.directory import RunDirectory
from noiseless.files.drawn import DrawnNoise
from noiseless.objective import Objective
from noiseless.recipes.recipe import Recipe

CONSTANT = 2
"""draws of an objective that does not change, to show that they have the same bits"""


def is_constant(recipe: Recipe) -> bool:
    """Whether every update minimises the same function: the full batch in fixed blocks, without fresh augmentation."""
    fixed = bool(recipe.data.copies) or not recipe.data.random
    return (
        recipe.objective.regime == "full-batch"
        and recipe.objective.parts == 1
        and not recipe.objective.shuffle
        and fixed
    )


def passes(recipe: Recipe, draws: int, images: int) -> float:
    """Cost of a measurement at one state, in gradient evaluations over the training images, without penalty."""
    stochastic = recipe.objective.regime == "stochastic"
    share = recipe.objective.block / images if stochastic else 1.0
    copies = 1 if stochastic else recipe.data.copies or 1
    rounding = is_constant(recipe) and recipe.model.autocast != "none"
    return copies * ((CONSTANT if is_constant(recipe) else draws) * share + 2.0 + 2.0 * rounding)


def measure(directory: RunDirectory, steps: Sequence[int], draws: int) -> Iterator[DrawnNoise]:
    """Measures the noise of a run at the steps at which it is not known yet, and keeps it in the run.

    Yields:
        The noise at each step, in their order.
    """
    known = {noise.step: noise for noise in drawn.measured(directory, steps)}
    for step in steps:
        if step not in known:
            known[step] = drawn_noise(StateAddress(directory, step), draws)
            drawn.write(directory, known[step])
        yield known[step]


def drawn_noise(address: StateAddress, draws: int) -> DrawnNoise:
    """Measures the noise of the next update's gradient at one state of a run, see `analysis.gradient_draws`.

    The draws are the first updates of the steps that follow the state, all at the state's parameters.

    Args:
        address: which run, and which of its states.
        draws: number of draws, at least 3; a constant objective is computed twice.

    Returns:
        The noise.

    Raises:
        ValueError: if the run has no such state, a gradient is not finite, or a constant objective changes.
    """
    state = load_state(address)
    recipe, risk = state.experiment.config.recipe, state.risk
    constant = is_constant(recipe)
    moments = gradient_draws(_draw(state, m) for m in range(CONSTANT if constant else draws))
    if constant and moments.covariance_trace != 0:
        raise ValueError(f"{address}: a gradient changed when it was computed again: check this machine")
    blocks = replace(risk, block=risk.norm.norm_block, norm_block=risk.norm.norm_block, autocast=None)
    check_blocks(blocks)
    spread = gradient_noise(blocks)
    variance, signal = moments.covariance_trace, moments.signal
    cost = moments.blocks * _draw(state, 0).passes + spread.passes
    if constant and recipe.model.autocast != "none":
        exact = load_state(address, change=EXACT.change)
        computed, reference = (one.objective.evaluate().gradient.double().cpu() for one in (state, exact))
        variance, signal = float((computed - reference).square().sum()), float(reference.square().sum())
        cost += 2 * state.objective.passes
    elif recipe.objective.regime == "stochastic":
        signal = spread.total.square  # the mean over all mini-batches is the full gradient
    elif not constant and moments.reason:
        signal = math.nan
    return DrawnNoise(
        state.step, state.step / recipe.schedule.steps, variance, signal if signal > 0 else None,
        spread.total.covariance_trace, risk.blocks.count, cost,
    )  # fmt: skip


def _draw(state: RunState, number: int) -> Objective:
    """The first update's objective of the step that comes `number` steps after the state, at the state's parameters."""
    return next(iter(state.experiment.regime.objectives(state.step + number)))
