"""The record of a run: a row a step in `metrics.jsonl`. Step 9 of a training step."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Self

from noiseless.files.answers import finite
from noiseless.files.directory import Row, RunDirectory
from noiseless.objective import Evaluation
from noiseless.objective.base import square_norms
from noiseless.objective.exactsum import exact_total
from noiseless.optim import Step
from noiseless.run.build import Experiment


class Record:
    """The metrics file as a context, in the worker that keeps the record; in the others nothing is written.

    Args:
        directory: of the run.
        kept: whether this is that worker.
        start: step from which rows are written; those from it on that are there are cut off.
    """

    def __init__(self, directory: RunDirectory, kept: bool, start: int):
        self._directory, self._kept, self._start = directory, kept, start

    def __enter__(self) -> Self:
        if self._kept:
            self._directory.cut_rows(self._start)
            self._file = self._directory.metrics.open("a")
        return self

    def __exit__(self, *error: object) -> None:
        if self._kept:
            self._file.close()

    def write(self, row: Row) -> None:
        """Appends a row, in which numbers that are not finite become null."""
        if self._kept:
            self._file.write(json.dumps(finite(row), allow_nan=False) + "\n")
            self._file.flush()


def make_row(experiment: Experiment, step: int, passes: float, lr: float, updates: list[Step], seconds: float) -> Row:
    """One row of `metrics.jsonl`; over the updates of a stochastic step, means (of losses, by count).

    `block_gradient_norm` is `sqrt((1 / N) sum_b n_b ||g_b||**2)` over the blocks of all updates, with g_b the gradient
    of a block's mean loss before penalty and clip: what the penalty on block gradients is made of. Where there is a
    line search, `search_size` is how far it went in units of the direction (the mean over updates), `search_trials` its
    evaluations beside the first, `search_fallbacks` how often the negative gradient was taken instead of the
    optimizer's direction, and `search_failures` how often no trial was low enough, so that nothing moved.

    Args:
        experiment: after the step.
        step: its number.
        passes: spent since the run began.
        lr: of the step.
        updates: what its updates did, at least one.
        seconds: that it took.

    Returns:
        Numbers by name.
    """
    found = [taken.evaluation for taken in updates]
    examples = sum(e.count for e in found)
    norms = [square_norms(e.gradient).sqrt().item() for e in found]
    hits = [e.hits for e in found if e.hits is not None]
    return {
        "step": step,
        "passes": round(passes, 9),
        "lr": lr,
        "train_loss": sum(e.loss * e.count for e in found) / examples,
        "train_accuracy": sum(hits) / examples if hits else None,
        "gradient_norm": sum(norms) / len(norms),
        "block_gradient_norm": math.sqrt(_mean_square_norm(found)),
        "parameter_norm": square_norms(experiment.space.theta).sqrt().item(),
        "penalty": sum(e.penalty * e.count for e in found) / examples,
        "clipped": sum(taken.clipped for taken in updates) / len(updates),
        "seconds": round(seconds, 6),
    } | _searches(updates)


def _searches(updates: list[Step]) -> Row:
    """What the line searches of a step came to; nothing where there was none."""
    found = [taken.search for taken in updates if taken.search is not None]
    if not found:
        return {}
    return {
        "search_size": sum(each.size for each in found) / len(found),
        "search_trials": sum(each.trials for each in found),
        "search_fallbacks": sum(each.fallback or each.restarted for each in found),
        "search_failures": sum(each.failed for each in found),
    }


def _mean_square_norm(found: Sequence[Evaluation]) -> float:
    """The mean of `||g_b||**2` over the blocks of several sweeps, by count; its bits depend on no order."""
    total = sum(exact_total(e.block_counts * e.block_square_norms) for e in found)
    return total / sum(e.count for e in found)
