"""The record of a run: one row for each step in `metrics.jsonl`. Step 9 of a training step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from noiseless.files.answers import finite
from noiseless.files.directory import Row, RunDirectory
from noiseless.objective import Evaluation
from noiseless.objective.base import square_norms
from noiseless.objective.exactsum import exact_total
from noiseless.optim import Step
from noiseless.run.build import Experiment


class Record:
    """The writer of `metrics.jsonl`; use it as a context. Every worker has one, and one of them writes.

    Args:
        directory: of the run.
        writes: whether this worker writes the file.
        start: first step to be written; rows of this step and later ones are removed from the file.
        on_message: gets messages about damaged lines.
    """

    def __init__(self, directory: RunDirectory, writes: bool, start: int, on_message: Callable[[str], None]):
        self._directory, self._writes, self._start, self._on_message = directory, writes, start, on_message

    def __enter__(self) -> Self:
        if self._writes:
            if problem := self._directory.cut_rows(self._start):
                self._on_message(problem)
            self._file = self._directory.metrics.open("a")
        return self

    def __exit__(self, *error: object) -> None:
        if self._writes:
            self._file.close()

    def write(self, row: Row) -> None:
        """Appends a row; numbers that are not finite become null."""
        if self._writes:
            self._file.write(json.dumps(finite(row), allow_nan=False) + "\n")
            self._file.flush()

    def flush(self) -> None:
        """Flushes the rows to the disk, so that a power cut does not take them."""
        if self._writes:
            os.fsync(self._file.fileno())


@dataclass(frozen=True)
class DoneStep:
    """A step that has been done: what the columns of its row are computed from."""

    experiment: Experiment
    """after the step"""
    step: int
    """number of the step, from 0"""
    passes: float
    """passes since the run began, those of the step included"""
    lr: float
    """learning rate of the step"""
    updates: Sequence[Step]
    """updates of the step, at least one"""
    seconds: float
    """duration of the step"""

    @property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations at which the updates started."""
        return [update.evaluation for update in self.updates]

    def mean(self, value: Callable[[Evaluation], float]) -> float:
        """The mean of a value over the updates, weighted by their numbers of examples."""
        evaluations = self.evaluations
        return sum(value(e) * e.count for e in evaluations) / sum(e.count for e in evaluations)


def _train_accuracy(done: DoneStep) -> float | None:
    hits = [e.hits for e in done.evaluations if e.hits is not None]
    return sum(hits) / sum(e.count for e in done.evaluations) if hits else None


def _gradient_norm(done: DoneStep) -> float:
    norms = [square_norms(e.gradient).sqrt().item() for e in done.evaluations]
    return sum(norms) / len(norms)


COMPUTED: dict[str, Callable[[DoneStep], float | None]] = {
    "step": lambda done: done.step,
    "passes": lambda done: round(done.passes, 9),
    "lr": lambda done: done.lr,
    "train_loss": lambda done: done.mean(lambda e: e.loss),
    "train_accuracy": _train_accuracy,
    "gradient_norm": _gradient_norm,
    "block_gradient_norm": lambda done: math.sqrt(_mean_square_norm(done.evaluations)),
    "parameter_norm": lambda done: square_norms(done.experiment.space.theta).sqrt().item(),
    "penalty": lambda done: done.mean(lambda e: e.penalty),
    "clipped": lambda done: sum(update.clipped for update in done.updates) / len(done.updates),
    "seconds": lambda done: round(done.seconds, 6),
}
"""the columns of every row, by name; `files/columns.py` says how they are shown"""


def make_row(done: DoneStep) -> Row:
    """One row of `metrics.jsonl`. Over several updates of a step, columns are means (of losses, weighted by count).

    `block_gradient_norm` is `sqrt((1 / N) sum_b n_b ||g_b||**2)` over the blocks of all updates, with g_b the gradient
    of a block's mean loss before penalty and clip; the penalty on block gradients is a multiple of its square. With a
    line search, `search_size` is the step size in units of the direction (the mean over updates), `search_trials` the
    number of evaluations after the first, `search_fallbacks` how often the negative gradient replaced the optimizer's
    direction, and `search_failures` how often no trial was low enough, so that nothing moved.

    Args:
        done: the step.

    Returns:
        Numbers by column.
    """
    return {name: of(done) for name, of in COMPUTED.items()} | _searches(done.updates)


def _searches(updates: Sequence[Step]) -> Row:
    """The columns of a step's line searches; empty where there was none."""
    searches = [update.search for update in updates if update.search is not None]
    if not searches:
        return {}
    return {
        "search_size": sum(search.size for search in searches) / len(searches),
        "search_trials": sum(search.trials for search in searches),
        "search_fallbacks": sum(search.fallback or search.restarted for search in searches),
        "search_failures": sum(search.failed for search in searches),
    }


def _mean_square_norm(evaluations: Sequence[Evaluation]) -> float:
    """The mean of `||g_b||**2` over the blocks of several sweeps, weighted by count; no order changes its bits."""
    total = sum(exact_total(e.block_weights * e.block_square_norms) for e in evaluations)
    return total / sum(e.weight for e in evaluations)
