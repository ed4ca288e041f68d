"""Questions about the steps of a run: the steps are made again in memory, and measured where they begin.

Such a question is a job that can be killed and continued: its state is saved after each step that is measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from noiseless.analysis import Hessian
from noiseless.ask.options import SharpnessOptions, StepOptions
from noiseless.ask.sharpness import ProductCost
from noiseless.ask.sharpness import cost as product_cost
from noiseless.ask.state import RunState, load_optimizer, load_state
from noiseless.files import answers
from noiseless.files.address import StateAddress
from noiseless.files.answers import Answer
from noiseless.files.checkpoint import State
from noiseless.files.parameters import fill
from noiseless.files.state import restored_from
from noiseless.files.stored import checkpoint_steps
from noiseless.files.unfinished import Unfinished
from noiseless.objective import GradientPenalty, Objective
from noiseless.objective.workers import Workers
from noiseless.run.replay import FirstUpdate, Replay, same
from noiseless.run.session import in_first
from noiseless.screen import print_note


@dataclass
class Course:
    """What is known of the steps so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """measurements, plain values, one for each step that was measured"""
    losses: dict[int, float] = field(default_factory=dict)
    """training loss where each step began"""
    memory: State = field(default_factory=dict)
    """what the next measurement starts from, as a checkpoint can hold it"""
    passes: float = 0.0
    equal: int = 0
    """replayed steps that have the bits of the record"""
    compared: int = 0
    """replayed steps that the record has"""

    def column(self, name: str) -> list[Any]:
        """A value of all rows; None where a row lacks it."""
        return [row.get(name) for row in self.rows]

    def state(self) -> State:
        """The course as a checkpoint holds it."""
        texts = {"rows": json.dumps(self.rows), "losses": json.dumps(list(self.losses.items()))}
        return {**texts, "memory": self.memory, "numbers": [self.passes, self.equal, self.compared]}

    @staticmethod
    def of(state: State) -> Course:
        """The course that a checkpoint holds."""
        losses = {int(step): loss for step, loss in json.loads(state["losses"])}
        return Course(json.loads(state["rows"]), losses, state["memory"], *state["numbers"])


@dataclass(frozen=True)
class StepsQuestion:
    """What is asked at the steps of a run."""

    kind: str
    """of the answer"""
    measure: Callable[[RunState, FirstUpdate, Course], None]
    """(run where a step began, the step's first update, course) adds a row to the course; the parameters are those
    after the update"""
    values: Callable[[RunState, Course], dict[str, Any]]
    """(run, course) -> values of the answer, besides those of all answers about steps"""


@dataclass(frozen=True)
class StepsJob:
    """A run that is to be followed, from a state at or before the first step that is measured."""

    question: StepsQuestion
    name: str
    """of the answer"""
    state: RunState
    begin: int
    """the first step that is measured"""
    end: int
    """number of steps done at the end"""
    every: int
    """measures at every N-th step"""
    saved: Unfinished

    @property
    def measured(self) -> int:
        """Number of steps that are measured."""
        return len(range(self.begin, self.end, self.every))

    @property
    def step_passes(self) -> float:
        """Cost of making one step, in passes."""
        return sum(objective.passes for objective in self.state.experiment.regime.objectives(self.state.step))

    def product(self, pairs: int) -> ProductCost:
        """Estimated cost of a Hessian product; takes the time of two products of a block."""
        penalised = isinstance(followed(self.state)[0], GradientPenalty)
        return product_cost(self.state, SharpnessOptions(largest=pairs, of="objective" if penalised else "loss"))

    def values(self, course: Course) -> dict[str, Any]:
        """The values that all answers about steps have."""
        return {
            "step": self.begin,
            "until": self.begin + len(course.losses),
            "every": self.every,
            "optimizer": self.state.experiment.config.recipe.optimizer.name,
            "steps": course.column("step"),
            "losses": list(course.losses.values()),
            "reproduced": {"equal": course.equal, "compared": course.compared},
            "passes": course.passes,
        }


def prepare_steps(
    question: StepsQuestion, address: StateAddress, options: StepOptions, name: str = "", workers: Workers | None = None
) -> StepsJob:
    """Loads the run at the newest state that it has kept at or before a step. Nothing is computed or written.

    Args:
        question: what is asked.
        address: of the first step that is measured; without a step, the run's first one.
        options: which steps, and what is measured.
        name: added to the name of the answer, which is otherwise the first step.
        workers: that share the sweeps; every worker must call this.

    Returns:
        The job.

    Raises:
        ValueError: if the run does not make the step, has no state from which it can be followed, or has fewer
            parameters than eigenvalues are to be computed.
    """
    directory = address.directory
    ended, first = directory.end(), directory.began()
    end = ended.step if ended else directory.config().recipe.schedule.steps
    begin = first if address.step is None else address.step
    if not first <= begin < end:
        raise ValueError(f"{directory.path} makes the steps {first} to {end - 1}: there is no step {begin} to follow")
    kept = [first, *(kept for kept in checkpoint_steps(directory) if first <= kept <= begin)]
    state = load_state(replace(address, step=max(kept)), workers)
    if options.pairs > len(state.experiment.space):
        raise ValueError(f"--pairs {options.pairs} is more than the {len(state.experiment.space)} parameters")
    if options.steps is not None:
        end = min(end, begin + options.steps)
    name = f"step-{begin}{name}"
    header = {"begin": begin, **asdict(replace(options, steps=None))}
    path = directory.path / answers.FOLDER / f"{question.kind}-{name}.unfinished"
    return StepsJob(question, name, state, begin, end, options.every, Unfinished(path, header))


def carry_out_steps(
    job: StepsJob,
    on_start: Callable[[int], None] = lambda done: None,
    on_step: Callable[[float], None] = lambda seconds: None,
) -> Answer:
    """Follows the run. What was measured before an interruption is not measured again.

    Args:
        job: every worker must call this.
        on_start: called once, with the number of steps that were measured earlier.
        on_step: called with the seconds of each further step that was measured.

    Returns:
        The answer, which is written as well.

    Raises:
        ValueError: if another process computes the same answer, or the workers see different states of it.
        SweepStoppedError: if a worker was told to stop; all workers raise it.
    """
    began, workers, directory = time.perf_counter(), job.state.experiment.workers, job.state.address.directory
    question, first = job.question, workers.rank == 0
    if first:
        answers.folder(directory)
    with in_first(workers, job.saved.locked):
        run, course = _resumed(job)
        on_start(len(course.rows))
        recorded = {row["step"]: row for row in directory.rows()}
        while run.number < job.end:
            step, start = run.number, time.perf_counter()
            due = step >= job.begin and (step - job.begin) % job.every == 0
            row = run.take(partial(_measured, job, step, course) if due else None)
            if row is None:
                break  # it diverges here
            if step in recorded:
                course.compared += 1
                course.equal += same(row, recorded[step])
            course.passes += job.step_passes
            if step >= job.begin:
                course.losses[step] = row["train_loss"]
            if due:
                on_step(time.perf_counter() - start)
                if first:
                    job.saved.save(run.number, _saved(run, course))
        seconds = round(time.perf_counter() - began, 3)
        answer = Answer(
            question.kind,
            job.name,
            job.values(course) | question.values(job.state, course) | {"seconds": seconds},
        )
        if first:
            answers.write(directory, answer)  # before the saved state goes
            job.saved.remove()
    return answer


def _measured(job: StepsJob, step: int, course: Course, update: FirstUpdate) -> None:
    job.question.measure(replace(job.state, step=step), update, course)


def _resumed(job: StepsJob) -> tuple[Replay, Course]:
    """The run and its course as an interrupted computation has saved them; else at the state of the job."""
    experiment, (state, problem) = job.state.experiment, job.saved.read()
    if problem and experiment.workers.rank == 0:
        print_note(f"{problem}; the steps are measured anew")
    numbers = experiment.workers.exchange("none" if state is None else str(state["number"]))
    if len(set(numbers)) > 1:
        raise ValueError(f"the workers see different states in {job.saved.path}: {', '.join(numbers)}")
    if state is None or state["number"] > job.end:
        load_optimizer(job.state)
        return Replay(experiment, job.state.step, job.state.transforms), Course()
    fill(experiment.model, state["model"], job.saved.path)
    with restored_from(job.saved.path):
        experiment.optimizer.load_state_dict(state["optimizer"])
    return Replay(experiment, state["number"], state["transforms"]), Course.of(state["course"])


def _saved(run: Replay, course: Course) -> State:
    return {
        "number": run.number,
        "model": dict(run.experiment.model.state_dict()),
        "optimizer": run.experiment.optimizer.state_dict(),
        "transforms": run.transformed,
        "course": course.state(),
    }


def followed(state: RunState) -> tuple[Objective, Hessian]:
    """What a run's steps lower at a state, with its penalty if that has a Hessian, and its Hessian.

    Args:
        state: of the run.

    Returns:
        The objective over all training examples: with the penalty, except one on the full gradient; and its Hessian.
    """
    penalised = state.penalised
    objective: Objective = state.risk
    if penalised is not None and not penalised.full_strength:
        objective = penalised
    return objective, Hessian(objective, "block")
