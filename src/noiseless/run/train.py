"""The one training loop: full batch and stochastic, from the first step or a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

from torch import Tensor

from noiseless.files import checkpoint, heads
from noiseless.files.directory import Row, RunDirectory
from noiseless.files.parameters import fill, refuse_other_model
from noiseless.files.state import restored_from
from noiseless.objective.workers import SweepStoppedError
from noiseless.optim import take_step
from noiseless.optim.transforms import State
from noiseless.portable import arithmetic
from noiseless.run import within
from noiseless.run.average import Average
from noiseless.run.build import Training
from noiseless.run.evaluate import Tested
from noiseless.run.messages import diagnosis, go_on
from noiseless.run.periodic import Analyses
from noiseless.run.rate import set_rate
from noiseless.run.record import DoneStep, DoneUpdate, Record, make_row


class Diverged(Exception):
    """The loss or its gradient is not finite."""


class Interrupted(Exception):
    """The run was told to stop; it can go on from a checkpoint."""


@dataclass
class Progress:
    """Callbacks of the training loop."""

    on_row: Callable[[Row], None] = lambda row: None
    """gets each row after it is recorded"""
    on_message: Callable[[str], None] = lambda text: None
    """gets messages for the user"""
    on_saved: Callable[[], None] = lambda: None
    """called in the first worker after a checkpoint or the final files are written"""


@dataclass
class _LoopState:
    """What one step passes to the next, besides model and optimizer."""

    average: Average | None
    """exponential average of the model's states, if the recipe has one"""
    analyses: Analyses
    """analyses during the run, with what they need of earlier steps"""
    passes: float = 0.0
    """passes since the run began"""
    transformed: State | None = None
    """state of the transforms"""
    perfect: int = 0
    """number of latest steps in a row with all training examples correct"""
    done: list[DoneUpdate] = field(default_factory=list)
    """updates of the step under way that are done"""
    first_update: AbstractContextManager[None] = field(default_factory=nullcontext)
    """context of the next update: the first one shows whether a restored state is of this optimizer"""
    until: int | None = None
    """number of steps after which the run ends; None: those of its recipe"""

    @property
    def average_state(self) -> dict[str, Tensor] | None:
        """The average by state name, or None."""
        return self.average.state if self.average else None


def train(
    experiment: Training, directory: RunDirectory | None, progress: Progress | None = None, until: int | None = None
) -> None:
    """Trains to the end of the run, from the newest undamaged checkpoint of its directory or from the first step.

    Every worker of the experiment calls it; the first one writes the record.

    Args:
        experiment: its model and optimizer are changed in place.
        directory: of the run; None: nothing is written.
        progress: callbacks; None: none.
        until: number of steps after which the run ends, no more than its recipe's; None: those. The schedule is the
            recipe's.

    Raises:
        Diverged: with step, learning rate and gradient norm, if value or gradient is not finite.
        Interrupted: if a worker was told to stop; all workers raise it.
    """
    with arithmetic(experiment.config.recipe.model.portable):
        _train(experiment, directory, progress or Progress(), until)


def _train(experiment: Training, directory: RunDirectory | None, progress: Progress, until: int | None) -> None:
    """`train`, whose operations are portable where the recipe wants that."""
    recipe, settings, workers = experiment.config.recipe, experiment.config.settings, experiment.workers
    if experiment.compiler is not None:
        experiment.compiler.on_message = progress.on_message
    step, loop = _restore(experiment, directory, progress.on_message)
    loop.until = until
    if workers.rank == 0:
        progress.on_saved()
    tested: Tested | None = None
    saved = time.monotonic()
    with Record(directory, workers.rank == 0, step, progress.on_message) as record:
        while not _ended(experiment, step, loop):
            began = time.perf_counter()
            lr = experiment.schedule(step)
            if not loop.done:  # else a resume goes on within the step
                loop.analyses.begin(step)
            objectives = list(experiment.regime.objectives(step))
            try:
                for number in range(len(loop.done), len(objectives)):
                    if loop.done and 0 < settings.checkpoint_seconds <= time.monotonic() - saved:
                        _save_within(experiment, directory, step, loop)
                        saved = time.monotonic()
                    workers.begin(step, number)
                    rate = set_rate(experiment, step, number, len(objectives))
                    with loop.first_update:
                        update = take_step(
                            experiment.optimizer, objectives[number], experiment.transform, loop.transformed, step
                        )
                    loop.first_update = nullcontext()
                    if not update.finite:
                        raise Diverged(diagnosis(update, step, number, rate, directory))
                    loop.transformed = update.transformed
                    loop.done.append(DoneUpdate.of(update))
            except SweepStoppedError as stopped:
                if not stopped.moved:  # else a resume repeats the update
                    (_save_within if loop.done else _save)(experiment, directory, step, loop)
                raise Interrupted(go_on(f"stopped in step {step} ({stopped})", experiment, directory)) from None
            loop.passes += sum(done.passes for done in loop.done)
            row = make_row(DoneStep(experiment, step, loop.passes, lr, loop.done, time.perf_counter() - began))
            loop.done = []
            if not math.isfinite(row["parameter_norm"]):
                raise Diverged(diagnosis(update, step, len(objectives) - 1, rate, directory))
            if loop.average:
                loop.average.update()
            loop.perfect = loop.perfect + 1 if row["train_accuracy"] == 1 else 0
            last = _ended(experiment, step + 1, loop)
            if last:
                row["final"] = checkpoint.digests(_final(experiment, loop))
            if workers.rank == 0 and (last or (step + 1) % (settings.evaluate_every or recipe.schedule.steps) == 0):
                tested = _test(experiment, loop.average)
                row |= tested.columns if tested else {}
            try:
                row |= loop.analyses.run(step, update.evaluation.gradient, last)
            except SweepStoppedError as stopped:  # the row would lack columns, so a resume repeats the step
                raise Interrupted(
                    go_on(f"stopped in the analysis after step {step} ({stopped})", experiment, directory)
                ) from None
            record.write(row)
            progress.on_row(row)
            if last or (step + 1) % settings.check_every == 0:
                _compare(experiment, step)
            stop = not last and workers.any(workers.stop())
            permanent = settings.keep_every is not None and (step + 1) % settings.keep_every == 0
            if last or stop or permanent or time.monotonic() - saved >= settings.checkpoint_seconds:
                record.flush()  # first: rows before a checkpoint are never computed again
                _save(experiment, directory, step + 1, loop)
                if workers.rank == 0 and not last:  # the final files follow
                    progress.on_saved()
                saved = time.monotonic()
            if stop:
                raise Interrupted(go_on(f"stopped after step {step}", experiment, directory))
            step += 1
    if workers.rank == 0 and directory is not None:
        # there is no score yet if the run was killed after its last row and resumed
        tested = tested or _test(experiment, loop.average)
        predictions = tested.predictions if tested else None
        directory.finish(experiment.model.state_dict(), loop.average_state, predictions)
        progress.on_saved()
    workers.begin(step)


def _ended(experiment: Training, step: int, loop: _LoopState) -> bool:
    """Whether the run ends before that step."""
    recipe = experiment.config.recipe
    end = recipe.schedule.steps if loop.until is None else loop.until
    return step >= end or 0 < recipe.schedule.stop_perfect <= loop.perfect


def _test(experiment: Training, average: Average | None) -> Tested | None:
    """Evaluates the average on the test examples, or the model where there is no average."""
    with average.installed() if average else nullcontext():
        return experiment.evaluate() if experiment.evaluate else None


def _compare(experiment: Training, step: int) -> None:
    """Raises if the bits of the workers' parameters differ."""
    digests = experiment.workers.exchange(checkpoint.digest({"theta": experiment.space.theta}))
    if len(set(digests)) > 1:
        listed = ", ".join(f"worker {rank}: {text[:12]}" for rank, text in enumerate(digests))
        raise ValueError(
            f"the workers' parameters differ after step {step} ({listed}): one machine computes wrongly, or has another"
            " library version. The checkpoints are kept: find that machine, and resume without it"
        )


def _save(experiment: Training, directory: RunDirectory | None, step: int, loop: _LoopState) -> None:
    """Writes a checkpoint after that number of steps, in the first worker."""
    if experiment.workers.rank == 0 and directory is not None:
        settings, ended = experiment.config.settings, _ended(experiment, step, loop)
        checkpoint.save(
            directory.checkpoints, step, _state(experiment, loop), settings.keep, settings.keep_every, ended
        )
        within.clear(directory)


def _save_within(experiment: Training, directory: RunDirectory | None, step: int, loop: _LoopState) -> None:
    """Writes the state after the updates of a step that are done, in the first worker."""
    if experiment.workers.rank == 0 and directory is not None:
        within.save(directory, step, loop.done, _state(experiment, loop) | {"before": loop.analyses.before})


def _state(experiment: Training, loop: _LoopState) -> checkpoint.State:
    """What a checkpoint holds."""
    return _final(experiment, loop) | {
        "optimizer": experiment.optimizer.state_dict(),
        "transforms": loop.transformed,
        "passes": loop.passes,
        "perfect": loop.perfect,
        "questions": loop.analyses.state(),
    }


def _final(experiment: Training, loop: _LoopState) -> dict[str, dict[str, Tensor] | None]:
    """Parameters and buffers, and their average."""
    return {"model": dict(experiment.model.state_dict()), "average": loop.average_state}


def begin_at(experiment: Training, directory: RunDirectory, step: int) -> None:
    """Writes a checkpoint with the present model and optimizer, from which `train` goes on at a step.

    Args:
        experiment: its transforms start with a new state, and its passes are counted from 0.
        directory: of the run.
        step: number of steps done.
    """
    _save(experiment, directory, step, _LoopState(None, Analyses(experiment)))


def _restore(
    experiment: Training, directory: RunDirectory | None, on_message: Callable[[str], None]
) -> tuple[int, _LoopState]:
    """The next step and the loop's state before it; restores model and optimizer from the newest checkpoint."""
    newest, part = (directory.newest(), within.read(directory)) if directory else (None, None)
    done: list[DoneUpdate] = []
    if newest is not None and part is not None and part.step >= newest.step:
        newest, done = replace(newest, step=part.step, state=part.state), part.done
    steps = experiment.workers.exchange(f"{newest.step} and {len(done)} updates" if newest else "none")
    if len(set(steps)) > 1:
        raise ValueError(f"the workers see different checkpoints of steps {', '.join(steps)}")
    if newest is not None and directory is not None:
        for problem in newest.damaged:
            on_message(f"{problem}; going on from step {newest.step}")
        if lacking := directory.lacking(newest.step):
            on_message(f"{lacking}; what is lost cannot be written again")
        fill(experiment.model, newest.state["model"], directory.checkpoints)
        with restored_from(directory.checkpoints):
            experiment.optimizer.load_state_dict(newest.state["optimizer"])
    momentum = experiment.config.recipe.evaluation.ema
    average = Average(experiment.model, momentum) if momentum else None
    analyses = Analyses(experiment)
    if newest is None or directory is None:
        if directory and heads.steps(directory.checkpoints):
            on_message(f"{directory.path} was stopped within its first checkpoint: it begins anew, and nothing is lost")
        loop = _LoopState(average, analyses)
        _save(experiment, directory, 0, loop)
        return 0, loop
    state = newest.state
    if average and state["average"]:  # an imported checkpoint has no average: it starts at the model
        refuse_other_model(experiment.model, state["average"], directory.checkpoints)
        average.restore(state["average"])
    with restored_from(directory.checkpoints):
        analyses.restore(state["questions"])
        if done:
            analyses.before = None if state["before"] is None else state["before"].to(experiment.space.theta)
    first_update = restored_from(directory.checkpoints)
    numbers = state["passes"], state["transforms"], state["perfect"]
    return newest.step, _LoopState(average, analyses, *numbers, done, first_update)
