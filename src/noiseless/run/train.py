"""The one training loop: full batch and stochastic, from the first step or a checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from noiseless.objective.base import square_norms
from noiseless.objective.workers import SweepStoppedError
from noiseless.optim import Step, take_step
from noiseless.optim.transforms import State
from noiseless.run import checkpoint
from noiseless.run.build import Experiment
from noiseless.run.directory import Row, RunDirectory
from noiseless.run.evaluate import score
from noiseless.run.parameters import fill


class Diverged(Exception):
    """The loss or its gradient is not finite."""


class Interrupted(Exception):
    """The run was asked to stop; a checkpoint is written."""


@dataclass
class Progress:
    """What a run tells between steps."""

    on_row: Callable[[Row], None] = lambda row: None
    """gets each row as it is recorded"""
    on_message: Callable[[str], None] = lambda text: None
    """gets what a user should know"""


def train(experiment: Experiment, directory: RunDirectory, progress: Progress | None = None) -> None:
    """Runs an experiment to its last step, from the newest whole checkpoint of its directory where there is one.

    Every worker of the experiment calls it; the first one keeps the record.

    Args:
        experiment: its objects are moved in place.
        directory: where the record goes.
        progress: what is told between steps.

    Raises:
        Diverged: with step, learning rate and gradient norm, if value or gradient is not finite.
        Interrupted: if a worker was told to stop; all raise it.
    """
    progress = progress or Progress()
    recipe, settings, workers = experiment.config.recipe, experiment.config.settings, experiment.workers
    experiment.model.train()
    start, passes, transformed = _restore(experiment, directory, progress.on_message)
    saved = time.monotonic()
    with _Record(directory, workers.rank == 0, start) as record:
        for step in range(start, recipe.steps):
            began = time.perf_counter()
            workers.begin(step)
            lr = experiment.schedule(step)
            for group in experiment.optimizer.param_groups:
                group["lr"] = lr
            updates: list[Step] = []
            try:
                for number, objective in enumerate(experiment.regime.objectives(step)):
                    taken = take_step(experiment.optimizer, objective, experiment.transform, transformed, step)
                    updates.append(taken)
                    if not taken.finite:
                        raise Diverged(_diagnosis(taken, step, number, lr, directory.path))
                    transformed = taken.transformed
            except SweepStoppedError as stopped:
                if not updates and not stopped.moved:  # else the step is computed from the last checkpoint again
                    _save(experiment, directory, step, passes, transformed)
                raise Interrupted(_go_on(f"stopped in step {step} ({stopped})", directory)) from None
            passes += sum(taken.passes for taken in updates)
            row = _row(experiment, step, passes, lr, updates, time.perf_counter() - began)
            if not math.isfinite(row["parameter_norm"]):
                raise Diverged(_diagnosis(updates[-1], step, len(updates) - 1, lr, directory.path))
            last = step == recipe.steps - 1
            if workers.rank == 0 and (last or (step + 1) % (settings.evaluate_every or recipe.steps) == 0):
                tested = score(experiment.model, experiment.test)
                row |= {"test_loss": tested.loss, "test_accuracy": tested.accuracy}
            record.write(row)
            progress.on_row(row)
            if last or (step + 1) % settings.check_every == 0:
                _compare(experiment, step)
            stop = not last and workers.any(workers.stop())
            if last or stop or time.monotonic() - saved >= settings.checkpoint_seconds:
                _save(experiment, directory, step + 1, passes, transformed)
                saved = time.monotonic()
            if stop:
                raise Interrupted(_go_on(f"stopped after step {step}", directory))
    if workers.rank == 0:
        directory.finish(experiment.model.state_dict())
    workers.begin(recipe.steps)


class _Record:
    """The metrics file, in the worker that keeps the record."""

    def __init__(self, directory: RunDirectory, kept: bool, start: int):
        self._directory, self._kept, self._start = directory, kept, start

    def __enter__(self) -> _Record:
        if self._kept:
            self._directory.cut_rows(self._start)
            self._file = self._directory.metrics.open("a")
        return self

    def __exit__(self, *error: object) -> None:
        if self._kept:
            self._file.close()

    def write(self, row: Row) -> None:
        if self._kept:
            finite = {k: v if _finite(v) else None for k, v in row.items()}
            self._file.write(json.dumps(finite, allow_nan=False) + "\n")
            self._file.flush()


def _go_on(what: str, directory: RunDirectory) -> str:
    return f"{what}; go on with: noiseless resume {directory.path}"


def _compare(experiment: Experiment, step: int) -> None:
    """Raises where the workers' parameters are not the same bits."""
    digests = experiment.workers.exchange(checkpoint.digest({"theta": experiment.space.theta}))
    if len(set(digests)) > 1:
        found = ", ".join(f"worker {rank}: {text[:12]}" for rank, text in enumerate(digests))
        raise ValueError(
            f"the workers' parameters differ after step {step} ({found}): a machine computes wrongly, or another"
            " library version is in use there. The checkpoints are kept; find it, and resume without it"
        )


def _row(experiment: Experiment, step: int, passes: float, lr: float, updates: list[Step], seconds: float) -> Row:
    """One row of `metrics.jsonl`; over the updates of a stochastic step, means (of losses, by count)."""
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
        "parameter_norm": square_norms(experiment.space.theta).sqrt().item(),
        "penalty": sum(e.penalty * e.count for e in found) / examples,
        "clipped": sum(taken.clipped for taken in updates) / len(updates),
        "seconds": round(seconds, 6),
    }


def _finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)


def _diagnosis(taken: Step, step: int, update: int, lr: float, run: Path) -> str:
    evaluation = taken.evaluation
    norm = square_norms(evaluation.gradient).sqrt().item()
    return (
        f"the objective is not finite at step {step}, update {update}: loss {evaluation.loss:g}, penalty"
        f" {evaluation.penalty:g}, lr {lr:g}, gradient norm {norm:g}. The checkpoints before it are kept in"
        f" {run / 'checkpoints'}. Try a smaller --lr, a longer --warmup or --clip"
    )


def _save(experiment: Experiment, directory: RunDirectory, step: int, passes: float, transformed: State | None) -> None:
    if experiment.workers.rank != 0:
        return
    state = {
        "model": dict(experiment.model.state_dict()),
        "optimizer": experiment.optimizer.state_dict(),
        "transforms": transformed,
        "passes": passes,
    }
    checkpoint.save(directory.checkpoints, step, state, experiment.config.settings.keep)


def begin_at(experiment: Experiment, directory: RunDirectory, step: int) -> None:
    """Writes the checkpoint from which `train` goes on at a step, with model and optimizer as they are.

    Args:
        experiment: its transforms begin anew, and passes are counted from here on.
        directory: of the run.
        step: number of steps done.
    """
    _save(experiment, directory, step, 0.0, None)


def _restore(
    experiment: Experiment, directory: RunDirectory, on_message: Callable[[str], None]
) -> tuple[int, float, State | None]:
    """Step, passes and transform state to go on from, with model and optimizer restored."""
    found = checkpoint.newest(directory.checkpoints)
    steps = experiment.workers.exchange(str(found.step) if found else "none")
    if len(set(steps)) > 1:
        raise ValueError(f"the workers see different checkpoints in {directory.path}, of steps {', '.join(steps)}")
    if found is None:
        _save(experiment, directory, 0, 0.0, None)
        return 0, 0.0, None
    for problem in found.damaged:
        on_message(f"{problem}; going on from step {found.step}")
    lost = set(range(directory.began(), found.step)) - {row["step"] for row in directory.rows()}
    if lost:
        on_message(f"{directory.metrics} lacks {len(lost)} rows before step {found.step}; they cannot be made again")
    fill(experiment.model, found.state["model"], directory.checkpoints)
    experiment.optimizer.load_state_dict(found.state["optimizer"])
    return found.step, found.state["passes"], found.state["transforms"]
