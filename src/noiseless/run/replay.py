"""Goes on with a run in memory, from one of its states: the steps that it made or will make, bit for bit.

A step is a function of the run's config and the state before it. So any step of a run can be made again, from the
checkpoint before it or from the beginning. Nothing is written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from noiseless.files.directory import Row
from noiseless.objective import Objective
from noiseless.optim import Linear, Step, take_step
from noiseless.optim.transforms import State
from noiseless.run.build import Training
from noiseless.run.rate import set_rate
from noiseless.run.record import DoneStep, DoneUpdate, make_row

COMPARED = ("train_loss", "gradient_norm", "parameter_norm")
"""columns of a row that tell whether a step was the same"""


@dataclass(frozen=True)
class FirstUpdate:
    """The first update of a step, after it was made; the optimizer holds its state after the update."""

    before: Tensor
    """the parameters at which the step began, `[P]`"""
    displacement: Tensor
    """the update, `[P]`"""
    objective: Objective
    """what the update lowers"""
    step: Step
    """its record, with the evaluation at `before`"""
    linear: Linear | None
    """of the run's transforms at this update; None: there are none, or it is not known"""
    updates: int
    """number of updates in the step"""


@dataclass
class Replay:
    """A run that goes on in memory."""

    experiment: Training
    """holds the state of the model and the optimizer; both are moved"""
    number: int
    """number of steps done"""
    transformed: State | None
    """state of the transforms; None before the first step"""

    def take(self, on_first: Callable[[FirstUpdate], None] | None = None) -> Row | None:
        """Makes the next step.

        Args:
            on_first: called after the step's first update.

        Returns:
            The columns of its row; None where the run diverges in this step.
        """
        experiment, step, began = self.experiment, self.number, time.perf_counter()
        objectives = list(experiment.regime.objectives(step))
        done: list[DoneUpdate] = []
        for number, objective in enumerate(objectives):
            set_rate(experiment, step, number, len(objectives))
            watched = on_first is not None and number == 0
            before = experiment.space.theta.detach().clone() if watched else None
            update = take_step(experiment.optimizer, objective, experiment.transform, self.transformed, step)
            if not update.finite:
                return None
            if watched and on_first is not None and before is not None:
                linear = self._linear(update, before)
                moved = experiment.space.theta.detach() - before
                on_first(FirstUpdate(before, moved, objective, update, linear, len(objectives)))
            self.transformed = update.transformed
            done.append(DoneUpdate.of(update))
        self.number += 1
        row = make_row(DoneStep(experiment, step, 0.0, experiment.schedule(step), done, time.perf_counter() - began))
        return row if math.isfinite(row["parameter_norm"]) else None

    def _linear(self, update: Step, before: Tensor) -> Linear | None:
        transform = self.experiment.transform
        if transform is None:
            return None
        state = transform.init(before) if self.transformed is None else self.transformed
        return transform.linear(update.evaluation.gradient, state, before, self.number)


def same(row: Row, recorded: Row) -> bool:
    """Whether a replayed step has the numbers that the run has recorded for it, bit for bit."""
    return all(row[name] == recorded.get(name) for name in COMPARED)
