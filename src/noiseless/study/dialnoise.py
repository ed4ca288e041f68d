"""The gradient noise that each run of a dial really had, measured at its states."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from noiseless.analysis import check_blocks, gradient_draws, gradient_noise
from noiseless.ask.precision import EXACT
from noiseless.ask.state import RunState, checkpoint_steps, load_state
from noiseless.files import answers
from noiseless.files.address import StateAddress
from noiseless.files.answers import Answer
from noiseless.objective import Objective
from noiseless.plain import typed
from noiseless.study.dial import QUARTERS, Arm
from noiseless.study.reproduce import Job

KIND = "draws"
"""kind of the answers in the directories of the runs"""
CONSTANT = 2
"""draws of an arm whose objective does not change, to show that they have the same bits"""


@dataclass(frozen=True)
class Noise:
    """The noise of an arm's gradient at a state of one of its runs."""

    step: int
    """steps done"""
    share: float
    """share of the updates done"""
    variance: float
    """E ||g - E g||^2 of one update's gradient: over draws; of `rounding`, its squared distance from float64"""
    signal: float | None
    """||E g||^2; None where it is not distinguished from zero"""
    covariance_trace: float
    """tr(Sigma): variance of the gradient of a single example, from the norm blocks of this state"""
    examples: int
    """N, number of training examples"""
    passes: float
    """cost of the measurement"""

    @property
    def noise_to_signal(self) -> float | None:
        """Variance divided by signal; None where the signal is not distinguished from zero."""
        return None if self.signal is None else self.variance / self.signal

    @property
    def like_batch(self) -> float:
        """The size b of mini-batches whose gradient has this variance; N for none.

        Without replacement, b of N examples give the variance `tr(Sigma) / b (1 - b / N)`, so `1 / b` is
        `variance / tr(Sigma) + 1 / N`.
        """
        if self.covariance_trace == 0:
            return self.examples if self.variance == 0 else math.nan
        return 1 / (self.variance / self.covariance_trace + 1 / self.examples)


def steps_of(job: Job) -> list[int]:
    """Steps of a finished run at which its noise is measured: after 1/4, 1/2 and 3/4 of its steps."""
    every, steps = job.keep_every or 1, job.recipe.schedule.steps
    kept = checkpoint_steps(job.directory)
    return [step for step in (every, 2 * every, 3 * every) if step in kept and step < steps]


def passes(arm: Arm, job: Job, draws: int, examples: int) -> float:
    """Cost of measuring one run's noise, in gradient evaluations over the training examples."""
    share = 1.0 if arm.batch is None else arm.batch / examples
    number = draws if arm.source not in ("none", "fixed copies", "rounding") else CONSTANT
    copies = job.recipe.data.copies or 1
    return (QUARTERS - 1) * (number * share * copies + 3.0 * copies)


def measured(arm: Arm, job: Job) -> list[Noise]:
    """The noise that earlier commands have measured in a run, by step."""
    found = [_from_answer(answer) for answer in answers.read(job.directory, KIND)] if job.path.is_dir() else []
    return [noise for noise in found if noise.step in steps_of(job)]


def measure(arm: Arm, job: Job, draws: int) -> Iterator[Noise]:
    """Measures the noise of a finished run at the states at which it is not known yet, and keeps it in the run.

    Yields:
        The noise at each state, by step.
    """
    known = {noise.step: noise for noise in measured(arm, job)}
    for step in steps_of(job):
        if step not in known:
            known[step] = _noise(arm, job, step, draws)
            answers.write(job.directory, _answer(known[step]))
        yield known[step]


def _noise(arm: Arm, job: Job, step: int, draws: int) -> Noise:
    """The noise at one state."""
    address = StateAddress(job.directory, step)
    state = load_state(address)
    risk = state.risk
    constant = arm.source in ("none", "fixed copies", "rounding")
    moments = gradient_draws(_draw(state, m) for m in range(CONSTANT if constant else draws))
    blocks = replace(risk, block=risk.norm.norm_block, norm_block=risk.norm.norm_block, autocast=None)
    check_blocks(blocks)
    spread = gradient_noise(blocks)
    variance, signal, cost = moments.covariance_trace, moments.signal, spread.passes
    cost += moments.blocks * _draw(state, 0).passes
    if constant and variance != 0:
        raise ValueError(
            f"{job.path}: the gradient of step {step} changed when it was computed again: check this machine"
        )
    if arm.source == "rounding":
        exact = load_state(address, change=EXACT.change)
        computed, reference = (one.objective.evaluate().gradient.double().cpu() for one in (state, exact))
        variance, signal, cost = float((computed - reference).square().sum()), float(reference.square().sum()), cost + 2
    elif arm.batch is not None:
        signal = spread.total.square  # the mean over all mini-batches is the full gradient
    elif not constant and moments.reason:
        signal = math.nan
    return Noise(
        step, step / job.recipe.schedule.steps, variance, signal if signal > 0 else None,
        spread.total.covariance_trace, risk.blocks.count, cost,
    )  # fmt: skip


def _draw(state: RunState, number: int) -> Objective:
    """The first update's objective of the step that comes `number` steps after the state, at the state's parameters."""
    return next(iter(state.experiment.regime.objectives(state.step + number)))


def _answer(noise: Noise) -> Answer:
    values = {name: getattr(noise, name) for name in Noise.__dataclass_fields__}
    return Answer(KIND, f"{noise.step:08d}", values)


def _from_answer(answer: Answer) -> Noise:
    noise: Noise = typed(Noise, answer.values, "")
    return noise
