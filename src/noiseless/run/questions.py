"""What a run asks of its objective on the way, where its settings say so. Step 9 of a training step.

Asked after a step, of the risk over all training examples as the next step will see them: the state that the
checkpoint of that step holds, and that the test columns of its row are of.
"""

from __future__ import annotations

import time

from torch import Tensor

from noiseless.analysis import Hessian, edge, ends, preconditioned
from noiseless.analysis.edge import DIAGONAL
from noiseless.optim import Step
from noiseless.run.build import Experiment
from noiseless.run.checkpoint import State
from noiseless.run.directory import Row


class Questions:
    """The questions of a run, with what is carried from one asking to the next.

    Args:
        experiment: of the run; its parameters are never moved.
    """

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        self._vectors: dict[str, Tensor] = {}

    def state(self) -> State:
        """What a checkpoint keeps: the eigenvectors found last, from which the next search begins."""
        return dict(self._vectors)

    def restore(self, state: State | None) -> None:
        """Takes up what a checkpoint has kept."""
        theta = self._experiment.space.theta
        self._vectors = {name: vectors.to(theta) for name, vectors in (state or {}).items()}

    def ask(self, step: int, updates: list[Step], last: bool) -> Row:
        """The columns that are due after a step.

        Args:
            step: that has been done.
            updates: what it did.
            last: whether it was the run's last, after which all is asked once more.

        Returns:
            Numbers by name, none where nothing is due.
        """
        began, settings = time.perf_counter(), self._experiment.config.settings

        def due(every: int | None) -> bool:
            return every is not None and (last or (step + 1) % every == 0)

        row: Row = {}
        if due(settings.sharpness_every):
            row |= self._sharpness(step)
        return row | {"asked_seconds": round(time.perf_counter() - began, 6)} if row else {}

    def _sharpness(self, step: int) -> Row:
        made = self._experiment
        count = min(made.config.settings.sharpness_count, len(made.space))
        hessian = Hessian(made.regime.risk_at(min(step + 1, made.config.recipe.steps - 1)))
        found = ends(hessian, count, start=self._vectors.get("plain"), seed=made.config.recipe.seed)
        self._vectors["plain"] = found.largest.vectors
        row: Row = {
            "sharpness": float(found.largest.values[0]),
            "eigenvalues": found.largest.values.tolist(),
            "eigenvalue_residuals": found.largest.residuals.tolist(),
            "stability": edge(made.optimizer),
            "asked_passes": found.passes,
        }
        if type(made.optimizer).__name__ in DIAGONAL:
            scaled = preconditioned(hessian, made.optimizer, made.space)
            other = ends(scaled, 1, start=self._vectors.get("preconditioned"), seed=made.config.recipe.seed)
            self._vectors["preconditioned"] = other.largest.vectors
            row |= {"preconditioned_sharpness": float(other.largest.values[0])}
            row["asked_passes"] += other.passes
        return row
