"""What a run asks of its objective on the way, where its settings say so. Step 9 of a training step.

Asked after a step, of the risk over all training examples as the next step will see them: the state that the
checkpoint of that step holds, and that the test columns of its row are of.
"""

from __future__ import annotations

import time

from torch import Tensor

from noiseless.analysis import (
    Hessian,
    gradient_noise,
    layers_of,
    noise_passes,
    preconditioned,
    stability_threshold,
    top_eigenvalues,
)
from noiseless.files.checkpoint import State
from noiseless.files.directory import Row
from noiseless.objective import EmpiricalRisk
from noiseless.optim import Step, entry_of
from noiseless.run.build import Experiment


class Questions:
    """The questions of a run, with what is carried from one asking to the next.

    Args:
        experiment: of the run; its parameters are never moved.
    """

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        self._vectors: dict[str, Tensor] = {}
        layers = experiment.config.settings.layers_every is not None
        self._start = experiment.space.theta.detach().clone() if layers else None
        self._before: Tensor | None = None

    def state(self) -> State:
        """What a checkpoint keeps: the eigenvectors found last, from which the next search begins, and the start."""
        return {"vectors": dict(self._vectors), "start": self._start}

    def restore(self, state: State) -> None:
        """Takes up what a checkpoint has kept."""
        theta = self._experiment.space.theta
        self._vectors = {name: vectors.to(theta) for name, vectors in state["vectors"].items()}
        if self._start is not None and state["start"] is not None:
            self._start = state["start"].to(theta)

    def begin(self, step: int) -> None:
        """Notes what a question after the step will need of the state before it."""
        if self._start is not None:
            self._before = self._experiment.space.theta.detach().clone()

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
        if due(settings.layers_every):
            assert self._start is not None
            assert self._before is not None
            space, gradient = self._experiment.space, updates[-1].evaluation.gradient
            row["layers"] = layers_of(space, self._start, self._before, gradient)
        passes = 0.0
        if due(settings.noise_every):
            risk = self._risk(step)
            noise = gradient_noise(risk)
            signal_to_noise = noise.total.signal_to_noise(noise.block)
            row |= {"noise_scale": noise.total.noise_scale, "signal_to_noise": signal_to_noise}
            passes += noise_passes(risk)
        if due(settings.sharpness_every):
            columns, spent = self._sharpness(step)
            row |= columns
            passes += spent
        row |= {"asked_passes": passes} if passes else {}
        return row | {"asked_seconds": round(time.perf_counter() - began, 6)} if row else {}

    def _risk(self, step: int) -> EmpiricalRisk:
        """Over all training examples, as the next step sees them; of the run's last step, as it saw them itself."""
        return self._experiment.regime.risk_at(min(step + 1, self._experiment.config.recipe.schedule.steps - 1))

    def _sharpness(self, step: int) -> tuple[Row, float]:
        """Columns of the spectrum, and the passes that they cost."""
        experiment = self._experiment
        count = min(experiment.config.settings.sharpness_count, len(experiment.space))
        hessian, seed = Hessian(self._risk(step)), experiment.config.recipe.seed
        top = top_eigenvalues(hessian, count, start=self._vectors.get("plain"), seed=seed)
        self._vectors["plain"] = top.largest.vectors
        row: Row = {
            "sharpness": float(top.largest.values[0]),
            "eigenvalues": top.largest.values.tolist(),
            "eigenvalue_residuals": top.largest.residuals.tolist(),
            "stability": stability_threshold(experiment.optimizer),
        }
        if entry_of(experiment.optimizer).diagonal is None:
            return row, top.passes
        scaled = preconditioned(hessian, experiment.optimizer, experiment.space)
        top_scaled = top_eigenvalues(scaled, 1, start=self._vectors.get("preconditioned"), seed=seed)
        self._vectors["preconditioned"] = top_scaled.largest.vectors
        return row | {"preconditioned_sharpness": float(top_scaled.largest.values[0])}, top.passes + top_scaled.passes
