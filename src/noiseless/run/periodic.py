"""Analyses during a run: layers, gradient noise and sharpness, as often as its settings say. Step 9 of a training step.

They are computed after a step, from the risk over all training examples as the next step will see them. The parameters
are those of the checkpoint after that step, and those to which the test columns of its row belong.
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
    top_eigenvalues,
)
from noiseless.files.checkpoint import State
from noiseless.files.directory import Row
from noiseless.objective import EmpiricalRisk
from noiseless.optim import entry_of
from noiseless.run.build import Training
from noiseless.run.updates import edge_of_stability


class Analyses:
    """The analyses that the settings of a run ask for, and what they need of earlier steps.

    Args:
        experiment: of the run; its parameters are never moved.
    """

    def __init__(self, experiment: Training):
        self._experiment = experiment
        self._vectors: dict[str, Tensor] = {}
        layers = experiment.config.settings.layers_every is not None
        self._start = experiment.space.theta.detach().clone() if layers else None
        self.before: Tensor | None = None
        """the parameters before the step that is under way, where an analysis after it will need them"""

    def state(self) -> State:
        """What a checkpoint keeps: the newest eigenvectors, where the next search starts, and the run's first theta."""
        return {"vectors": dict(self._vectors), "start": self._start}

    def restore(self, state: State) -> None:
        """Restores the state from a checkpoint; raises `ValueError` if it is of another number of parameters."""
        theta = self._experiment.space.theta
        kept = [*state["vectors"].values(), *([state["start"]] if state["start"] is not None else [])]
        if any(tensor.shape[-1:] != theta.shape or tensor.dtype != theta.dtype for tensor in kept):
            raise ValueError("the eigenvectors in its checkpoint are not of this model: restore it from a copy")
        self._vectors = {name: vectors.to(theta) for name, vectors in state["vectors"].items()}
        if self._start is not None and state["start"] is not None:
            self._start = state["start"].to(theta)

    def begin(self, step: int) -> None:
        """Keeps the parameters before the step where an analysis after it will need them."""
        if self._start is not None:
            self.before = self._experiment.space.theta.detach().clone()

    def run(self, step: int, gradient: Tensor, last: bool) -> Row:
        """Runs the analyses that are due after a step.

        Args:
            step: number of the step that has been done.
            gradient: of its last update, `[P]`.
            last: whether it was the run's last step, after which all analyses are due.

        Returns:
            The columns of the step's row, by name; empty where no analysis is due.
        """
        began, settings = time.perf_counter(), self._experiment.config.settings

        def due(every: int | None) -> bool:
            return every is not None and (last or (step + 1) % every == 0)

        row: Row = {}
        if due(settings.layers_every):
            assert self._start is not None
            assert self.before is not None
            row["layers"] = layers_of(self._experiment.space, self._start, self.before, gradient)
        passes = 0.0
        if due(settings.noise_every):
            risk = self._risk(step)
            noise = gradient_noise(risk)
            signal_to_noise = noise.total.signal_to_noise(noise.block)
            row |= {"noise_scale": noise.total.noise_scale, "signal_to_noise": signal_to_noise}
            passes += noise_passes(risk)
        if due(settings.sharpness_every):
            columns, sharpness_passes = self._sharpness(step)
            row |= columns
            passes += sharpness_passes
        row |= {"asked_passes": passes} if passes else {}
        return row | {"asked_seconds": round(time.perf_counter() - began, 6)} if row else {}

    def _risk(self, step: int) -> EmpiricalRisk:
        """The risk over all training examples as the next step sees them; after the last step, as that one saw them."""
        return self._experiment.regime.risk_at(min(step + 1, self._experiment.config.recipe.schedule.steps - 1))

    def _sharpness(self, step: int) -> tuple[Row, float]:
        """Columns of the largest eigenvalues, and the passes that they cost."""
        experiment = self._experiment
        count = min(experiment.config.settings.sharpness_count, len(experiment.space))
        hessian, seed = Hessian(self._risk(step)), experiment.config.recipe.seed
        top = top_eigenvalues(hessian, count, start=self._vectors.get("plain"), seed=seed)
        self._vectors["plain"] = top.largest.vectors
        row: Row = {
            "sharpness": float(top.largest.values[0]),
            "eigenvalues": top.largest.values.tolist(),
            "eigenvalue_residuals": top.largest.residuals.tolist(),
            "stability": edge_of_stability(experiment.config.recipe, experiment.optimizer),
        }
        if entry_of(experiment.optimizer).diagonal is None:
            return row, top.passes
        scaled = preconditioned(hessian, experiment.optimizer, experiment.space)
        top_scaled = top_eigenvalues(scaled, 1, start=self._vectors.get("preconditioned"), seed=seed)
        self._vectors["preconditioned"] = top_scaled.largest.vectors
        return row | {"preconditioned_sharpness": float(top_scaled.largest.values[0])}, top.passes + top_scaled.passes
