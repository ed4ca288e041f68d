"""The record of a run: one row for each step in `metrics.jsonl`. Step 9 of a training step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from noiseless.files.answers import finite
from noiseless.files.directory import Row, RunDirectory
from noiseless.objective.base import square_norms
from noiseless.objective.exactsum import exact_total
from noiseless.optim import Step
from noiseless.optim.searched import Outcome
from noiseless.run.build import Training


class Record:
    """The writer of `metrics.jsonl`; use it as a context. Every worker has one, and one of them writes.

    Args:
        directory: of the run; None: nothing is written.
        writes: whether this worker writes the file.
        start: first step to be written; rows of this step and later ones are removed from the file.
        on_message: gets messages about damaged lines.
    """

    def __init__(self, directory: RunDirectory | None, writes: bool, start: int, on_message: Callable[[str], None]):
        self._directory, self._start, self._on_message = directory, start, on_message
        self._writes = writes and directory is not None

    def __enter__(self) -> Self:
        if self._writes and self._directory is not None:
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
class DoneUpdate:
    """The numbers of an update that a step's row is computed from."""

    loss: float
    """mean loss over the examples, where the update started"""
    penalty: float
    """what the penalty added to it"""
    hits: int | None
    """examples classified correctly; None where this is no classification"""
    count: int
    """number of examples"""
    weight: float
    """sum of the blocks' weights"""
    block_square_norms: float
    """sum over the blocks of weight times squared gradient norm"""
    gradient_norm: float
    """L2 norm of the gradient"""
    clipped: bool
    """whether a clip of the chain has shortened the gradient"""
    passes: float
    """cost of all evaluations of the update"""
    search: Row | None
    """result of the line search, by the fields of `Outcome`; None where there was none"""

    @staticmethod
    def of(update: Step) -> DoneUpdate:
        """The numbers of an update."""
        e = update.evaluation
        return DoneUpdate(
            e.loss, e.penalty, e.hits, e.count, e.weight,
            exact_total(e.block_weights * e.block_square_norms),  # no order of the blocks changes its bits
            square_norms(e.gradient).sqrt().item(),
            update.clipped, update.passes, None if update.search is None else asdict(update.search),
        )  # fmt: skip


@dataclass(frozen=True)
class DoneStep:
    """A step that has been done: what the columns of its row are computed from."""

    experiment: Training
    """after the step"""
    step: int
    """number of the step, from 0"""
    passes: float
    """passes since the run began, those of the step included"""
    lr: float
    """learning rate of the step"""
    updates: Sequence[DoneUpdate]
    """updates of the step, at least one"""
    seconds: float
    """duration of the step"""

    def mean(self, value: Callable[[DoneUpdate], float]) -> float:
        """The mean of a value over the updates, weighted by their numbers of examples."""
        return sum(value(update) * update.count for update in self.updates) / sum(u.count for u in self.updates)


def _train_accuracy(done: DoneStep) -> float | None:
    hits = [update.hits for update in done.updates if update.hits is not None]
    return sum(hits) / sum(update.count for update in done.updates) if hits else None


def _block_gradient_norm(done: DoneStep) -> float:
    total = sum(update.block_square_norms for update in done.updates)
    return math.sqrt(total / sum(update.weight for update in done.updates))


COMPUTED: dict[str, Callable[[DoneStep], float | None]] = {
    "step": lambda done: done.step,
    "passes": lambda done: round(done.passes, 9),
    "lr": lambda done: done.lr,
    "train_loss": lambda done: done.mean(lambda e: e.loss),
    "train_accuracy": _train_accuracy,
    "gradient_norm": lambda done: sum(update.gradient_norm for update in done.updates) / len(done.updates),
    "block_gradient_norm": _block_gradient_norm,
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


def _searches(updates: Sequence[DoneUpdate]) -> Row:
    """The columns of a step's line searches; empty where there was none."""
    searches = [Outcome(**update.search) for update in updates if update.search is not None]
    if not searches:
        return {}
    return {
        "search_size": sum(search.size for search in searches) / len(searches),
        "search_trials": sum(search.trials for search in searches),
        "search_fallbacks": sum(search.fallback or search.restarted for search in searches),
        "search_failures": sum(search.failed for search in searches),
    }
