"""The one training loop: full batch and stochastic, from the first step or a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from noiseless.files import checkpoint
from noiseless.files.directory import Row, RunDirectory
from noiseless.files.parameters import fill
from noiseless.objective.base import square_norms
from noiseless.objective.workers import SweepStoppedError
from noiseless.optim import Step, take_step
from noiseless.optim.transforms import State
from noiseless.run.average import Average
from noiseless.run.build import Experiment
from noiseless.run.evaluate import Score, score
from noiseless.run.periodic import Questions
from noiseless.run.record import DoneStep, Record, make_row


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


@dataclass
class _Carried:
    """What goes from step to step, beside model and optimizer."""

    average: Average | None
    """of the model's states, where one is kept"""
    questions: Questions
    """that are asked on the way"""
    passes: float = 0.0
    """spent since the run began"""
    transformed: State | None = None
    """of the transforms"""
    perfect: int = 0
    """steps in a row, up to now, with all training examples correct"""

    @property
    def average_state(self) -> dict[str, Tensor] | None:
        """The average by state name."""
        return self.average.state if self.average else None


def train(experiment: Experiment, directory: RunDirectory, progress: Progress | None = None) -> None:
    """Runs an experiment to its end, from the newest whole checkpoint of its directory where there is one.

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
    if experiment.compiler is not None:
        experiment.compiler.on_message = progress.on_message
    step, carried = _restore(experiment, directory, progress.on_message)
    tested: Score | None = None
    saved = time.monotonic()
    with Record(directory, workers.rank == 0, step) as record:
        while not _ended(experiment, step, carried):
            began = time.perf_counter()
            workers.begin(step)
            lr = experiment.schedule(step)
            carried.questions.begin(step)
            updates: list[Step] = []
            try:
                objectives = list(experiment.regime.objectives(step))
                for number, objective in enumerate(objectives):
                    share = number / len(objectives) if recipe.schedule.rate_by == "update" else 0
                    rate = experiment.schedule(step + share)
                    _set_rate(experiment.optimizer, rate)
                    taken = take_step(experiment.optimizer, objective, experiment.transform, carried.transformed, step)
                    updates.append(taken)
                    if not taken.finite:
                        raise Diverged(_diagnosis(taken, step, number, rate, directory.path))
                    carried.transformed = taken.transformed
            except SweepStoppedError as stopped:
                if not updates and not stopped.moved:  # else the step is computed from the last checkpoint again
                    _save(experiment, directory, step, carried)
                raise Interrupted(_go_on(f"stopped in step {step} ({stopped})", directory)) from None
            carried.passes += sum(taken.passes for taken in updates)
            row = make_row(DoneStep(experiment, step, carried.passes, lr, updates, time.perf_counter() - began))
            if not math.isfinite(row["parameter_norm"]):
                raise Diverged(_diagnosis(updates[-1], step, len(updates) - 1, rate, directory.path))
            if carried.average:
                carried.average.follow()
            carried.perfect = carried.perfect + 1 if row["train_accuracy"] == 1 else 0
            last = _ended(experiment, step + 1, carried)
            if workers.rank == 0 and (last or (step + 1) % (settings.evaluate_every or recipe.schedule.steps) == 0):
                tested = _test(experiment, carried.average)
                row |= {"test_loss": tested.loss, "test_accuracy": tested.accuracy}
            try:
                row |= carried.questions.ask(step, updates, last)
            except SweepStoppedError as stopped:  # its row lacks answers, so the step is computed again
                raise Interrupted(_go_on(f"stopped in the analysis after step {step} ({stopped})", directory)) from None
            record.write(row)
            progress.on_row(row)
            if last or (step + 1) % settings.check_every == 0:
                _compare(experiment, step)
            stop = not last and workers.any(workers.stop())
            kept = settings.keep_every is not None and (step + 1) % settings.keep_every == 0
            if last or stop or kept or time.monotonic() - saved >= settings.checkpoint_seconds:
                _save(experiment, directory, step + 1, carried)
                saved = time.monotonic()
            if stop:
                raise Interrupted(_go_on(f"stopped after step {step}", directory))
            step += 1
    if workers.rank == 0:
        tested = tested or _test(experiment, carried.average)  # a run that was killed after its last row
        directory.finish(experiment.model.state_dict(), carried.average_state, tested.predictions)
    workers.begin(step)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _ended(experiment: Experiment, step: int, carried: _Carried) -> bool:
    """Whether no step is left, from that one on."""
    recipe = experiment.config.recipe
    return step >= recipe.schedule.steps or 0 < recipe.schedule.stop_perfect <= carried.perfect


def _test(experiment: Experiment, average: Average | None) -> Score:
    """Evaluates the model, or its average where one is kept, on the test images."""
    with average.installed() if average else nullcontext():
        return score(experiment.model, experiment.test, experiment.config.recipe.evaluation.test_flips)


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


def _diagnosis(taken: Step, step: int, update: int, lr: float, run: Path) -> str:
    evaluation = taken.evaluation
    norm = square_norms(evaluation.gradient).sqrt().item()
    return (
        f"the objective is not finite at step {step}, update {update}: loss {evaluation.loss:g}, penalty"
        f" {evaluation.penalty:g}, lr {lr:g}, gradient norm {norm:g}. The checkpoints before it are kept in"
        f" {run / 'checkpoints'}. Try a smaller --lr, a longer --warmup or --clip"
    )


def _save(experiment: Experiment, directory: RunDirectory, step: int, carried: _Carried) -> None:
    if experiment.workers.rank != 0:
        return
    state = {
        "model": dict(experiment.model.state_dict()),
        "average": carried.average_state,
        "optimizer": experiment.optimizer.state_dict(),
        "transforms": carried.transformed,
        "passes": carried.passes,
        "perfect": carried.perfect,
        "questions": carried.questions.state(),
    }
    settings = experiment.config.settings
    checkpoint.save(directory.checkpoints, step, state, settings.keep, settings.keep_every)


def begin_at(experiment: Experiment, directory: RunDirectory, step: int) -> None:
    """Writes the checkpoint from which `train` goes on at a step, with model and optimizer as they are.

    Args:
        experiment: its transforms begin anew, and passes are counted from here on.
        directory: of the run.
        step: number of steps done.
    """
    _save(experiment, directory, step, _Carried(None, Questions(experiment)))


def _restore(
    experiment: Experiment, directory: RunDirectory, on_message: Callable[[str], None]
) -> tuple[int, _Carried]:
    """The step to go on from and what is carried to it, with model and optimizer restored."""
    found = checkpoint.newest(directory.checkpoints)
    steps = experiment.workers.exchange(str(found.step) if found else "none")
    if len(set(steps)) > 1:
        raise ValueError(f"the workers see different checkpoints in {directory.path}, of steps {', '.join(steps)}")
    if found is not None:
        for problem in found.damaged:
            on_message(f"{problem}; going on from step {found.step}")
        lost = set(range(directory.began(), found.step)) - {row["step"] for row in directory.rows()}
        if lost:
            on_message(
                f"{directory.metrics} lacks {len(lost)} rows before step {found.step}; they cannot be made again"
            )
        fill(experiment.model, found.state["model"], directory.checkpoints)
        experiment.optimizer.load_state_dict(found.state["optimizer"])
    momentum = experiment.config.recipe.evaluation.ema
    average = Average(experiment.model, momentum) if momentum else None
    questions = Questions(experiment)
    if found is None:
        carried = _Carried(average, questions)
        _save(experiment, directory, 0, carried)
        return 0, carried
    if average and found.state["average"]:  # a checkpoint that was imported has none: it begins there
        average.restore(found.state["average"])
    state = found.state
    questions.restore(state["questions"])
    return found.step, _Carried(average, questions, state["passes"], state["transforms"], state["perfect"])
