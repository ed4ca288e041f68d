"""The edge of stability along a run: eigenvalues that are followed from step to step, beside the edge of its steps.

A job that can be killed and continued: its state is saved after each step that is measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from noiseless.analysis import (
    BatchSharpness,
    Hessian,
    Operator,
    Tracked,
    batch_sharpness,
    catapults,
    crossings,
    spectral_sharpness,
    steepest,
    step_ratio,
    top_eigenvalues,
    tracked,
)
from noiseless.ask.following import before, followed, last_step, replay
from noiseless.ask.noise import risk_in_blocks
from noiseless.ask.options import EdgeOptions, NoiseOptions, SharpnessOptions
from noiseless.ask.sharpness import ProductCost
from noiseless.ask.sharpness import cost as product_cost
from noiseless.ask.state import RunState
from noiseless.files import answers
from noiseless.files.address import StateAddress
from noiseless.files.answers import Answer
from noiseless.files.checkpoint import State
from noiseless.files.parameters import fill
from noiseless.files.unfinished import Unfinished
from noiseless.objective import EmpiricalRisk, GradientPenalty
from noiseless.objective.workers import Workers
from noiseless.optim import Searched, entry_of
from noiseless.run.replay import FirstUpdate, Replay, same
from noiseless.run.session import in_first
from noiseless.run.updates import stability_of

KIND = "edge"


@dataclass
class _Course:
    """What is known so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """measurements, one for each step that was measured"""
    losses: dict[int, float] = field(default_factory=dict)
    """training loss where each step began"""
    tracked: Tracked | None = None
    directions: Tensor | None = None
    """where the searches for Muon's sharpness have ended, `[K, P]`"""
    passes: float = 0.0
    equal: int = 0
    """replayed steps that have the bits of the record"""
    compared: int = 0
    """replayed steps that the record has"""

    def state(self) -> State:
        """The course as a checkpoint holds it."""
        t = self.tracked
        return {
            "rows": json.dumps(self.rows),
            "losses": json.dumps(list(self.losses.items())),
            "tracked": None if t is None else [t.vectors, list(t.branches), list(t.overlaps), t.span, t.begun],
            "directions": self.directions,
            "numbers": [self.passes, self.equal, self.compared],
        }

    @staticmethod
    def of(state: State) -> _Course:
        """The course that a checkpoint holds."""
        kept = state["tracked"]
        followed = None if kept is None else Tracked(kept[0], tuple(kept[1]), tuple(kept[2]), kept[3], kept[4])
        losses = {int(step): loss for step, loss in json.loads(state["losses"])}
        return _Course(json.loads(state["rows"]), losses, followed, state["directions"], *state["numbers"])


@dataclass(frozen=True)
class EdgeJob:
    """A run that is to be followed, from a state at or before the first step that is measured."""

    state: RunState
    options: EdgeOptions
    begin: int
    """the first step that is measured"""
    end: int
    """number of steps done at the end"""
    saved: Unfinished
    name: str
    """of the answer"""

    @property
    def measured(self) -> int:
        """Number of steps that are measured."""
        return len(range(self.begin, self.end, self.options.every))

    @property
    def step_passes(self) -> float:
        """Cost of making one step, in passes."""
        return sum(objective.passes for objective in self.state.experiment.regime.objectives(self.state.step))

    def product(self) -> ProductCost:
        """Estimated cost of a Hessian product; takes the time of two products of a block.

        Returns:
            The cost.
        """
        penalised = isinstance(followed(self.state)[0], GradientPenalty)
        pairs = self.options.pairs
        return product_cost(self.state, SharpnessOptions(largest=pairs, of="objective" if penalised else "loss"))


def prepare(address: StateAddress, options: EdgeOptions, workers: Workers | None = None) -> EdgeJob:
    """Loads the run at the newest state that it has kept at or before a step. Nothing is computed or written.

    Args:
        address: of the first step that is measured; without a step, the run's first one.
        options: which steps, and what is measured.
        workers: that share the sweeps; every worker must call this.

    Returns:
        The job.

    Raises:
        ValueError: if the run does not make the step, has no state from which it can be followed, or does not have the
            blocks or as many parameters as the options ask for.
    """
    state = before(address, workers)
    begin = state.address.directory.began() if address.step is None else address.step
    end = last_step(address)
    if options.steps is not None:
        end = min(end, begin + options.steps)
    if options.pairs > len(state.experiment.space):
        raise ValueError(f"--pairs {options.pairs} is more than the {len(state.experiment.space)} parameters")
    if options.batch:
        _blocks(state, options)
    name = f"step-{begin}" + (f"-batch-{options.batch}" if options.batch else "")
    header = {"begin": begin, **asdict(replace(options, steps=None))}
    path = address.directory.path / answers.FOLDER / f"{KIND}-{name}.unfinished"
    return EdgeJob(state, options, begin, end, Unfinished(path, header), name)


def carry_out(
    job: EdgeJob,
    on_start: Callable[[int], None] = lambda done: None,
    on_step: Callable[[float], None] = lambda seconds: None,
) -> Answer:
    """Follows the run. What was measured before an interruption is not measured again.

    Args:
        job: every worker must call this.
        on_start: called once, with the number of steps that were measured earlier.
        on_step: called with the seconds of each further step that was measured.

    Returns:
        The answer.

    Raises:
        ValueError: if another process computes the same answer, or the workers see different states of it.
        SweepStoppedError: if a worker was told to stop; all workers raise it.
    """
    began, workers = time.perf_counter(), job.state.experiment.workers
    first = workers.rank == 0
    if first:
        answers.folder(job.state.address.directory)
    with in_first(workers, job.saved.locked):
        run, course = _resumed(job, replay(job.state))
        on_start(len(course.rows))
        recorded = {row["step"]: row for row in job.state.address.directory.rows()}
        while run.number < job.end:
            step, start = run.number, time.perf_counter()
            due = step >= job.begin and (step - job.begin) % job.options.every == 0
            row = run.take((lambda update: _measure(job, step, update, course)) if due else None)  # noqa: B023
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
        done = _answer(job, course, round(time.perf_counter() - began, 3))
        if first:
            answers.write(job.state.address.directory, done)
            job.saved.remove()
    return done


def _resumed(job: EdgeJob, run: Replay) -> tuple[Replay, _Course]:
    """The run and its course as an interrupted computation has saved them; else as they are given."""
    workers, experiment = run.experiment.workers, run.experiment
    state = job.saved.read()
    numbers = workers.exchange("none" if state is None else str(state["number"]))
    if len(set(numbers)) > 1:
        raise ValueError(f"the workers see different states in {job.saved.path}: {', '.join(numbers)}")
    if state is None or state["number"] > job.end:
        return run, _Course()
    fill(experiment.model, state["model"], job.saved.path)
    experiment.optimizer.load_state_dict(state["optimizer"])
    return Replay(experiment, state["number"], state["transforms"]), _Course.of(state["course"])


def _saved(run: Replay, course: _Course) -> State:
    return {
        "number": run.number,
        "model": dict(run.experiment.model.state_dict()),
        "optimizer": run.experiment.optimizer.state_dict(),
        "transforms": run.transformed,
        "course": course.state(),
    }


def _measure(job: EdgeJob, step: int, update: FirstUpdate, course: _Course) -> None:
    """Measures where a step began, and adds a row to the course."""
    state, options = replace(job.state, step=step), job.options
    experiment = state.experiment
    with experiment.space.at(update.before):
        objective, hessian = followed(state)
        of = "objective" if objective is not state.risk and isinstance(objective, GradientPenalty) else "loss"
        stability = stability_of(experiment, hessian, update.linear, of)  # type: ignore[arg-type]
        before = None if course.tracked is None else course.tracked.vectors
        top = top_eigenvalues(
            stability.operator, options.pairs, tolerance=options.tolerance, most=options.most, start=before,
            seed=options.seed,
        )  # fmt: skip
        pairs = top.largest
        course.tracked = tracked(pairs.vectors, course.tracked)
        row: dict[str, Any] = {
            "step": step,
            "lr": experiment.optimizer.param_groups[0]["lr"],
            "sharpness": float(pairs.values[0]),
            "edge": stability.edge,
            "reason": stability.reason,
            "of": of,
            "preconditioned": stability.root is not None,
            "factor": _factor(update),
            "eigenvalues": pairs.values.tolist(),
            "residuals": pairs.residuals.tolist(),
            "branches": list(course.tracked.branches),
            "overlaps": list(course.tracked.overlaps),
            "span": course.tracked.span,
            "converged": top.converged,
        }
        passes = top.passes
        if update.updates == 1 and not isinstance(experiment.optimizer, Searched):
            image = hessian.product(update.displacement[None])[0]
            passes += hessian.passes(1)
            row["step_ratio"] = step_ratio(update.step.evaluation.gradient, update.displacement, image)
        spectral, cost = _spectral(job, hessian, update, float(pairs.values[0]), course)
        batch = _batch(state, options)
        row |= spectral
        if batch is not None:
            row |= {"batch_sharpness": batch.mean, "batch_ratio": batch.ratio}
            passes += batch.passes
        course.passes += passes + cost
        course.rows.append(row)


def _spectral(
    job: EdgeJob, hessian: Operator, update: FirstUpdate, largest: float, course: _Course
) -> tuple[dict[str, Any], float]:
    """Sharpness and edge in spectral norms, for an optimizer like Muon, and their cost in passes; else nothing."""
    experiment, options = job.state.experiment, job.options
    optimizer, space = experiment.optimizer, experiment.space
    entry, recipe = entry_of(optimizer), experiment.config.recipe
    if entry.radii is None or recipe.objective.sam or recipe.transforms.block_clip is not None:
        return {}, 0.0
    of = entry.radii(optimizer)
    radii = {name: of[p] for name, p in zip(space.names, space.parameters, strict=True) if p in of}
    steepest_now, dual = steepest(update.step.evaluation.gradient, space, radii)
    start = steepest_now[None]
    if course.directions is not None:
        start = torch.cat([start, course.directions[:1].to(start)])
    result = spectral_sharpness(
        hessian, radii, largest, start, tolerance=options.tolerance, most=options.most, seed=options.seed
    )
    course.directions = result.directions[:1]
    lr = optimizer.param_groups[0]["lr"]
    known = lr > 0 and recipe.objective.parts == 1
    return {
        "sharpness": result.value,
        "sharpness_bound": result.bound,
        "spectral": True,
        "edge": 2 * dual / lr if known else None,
        "reason": None if known else "Muon's edge is not known with several parts, or at a rate of 0",
        "converged": result.converged,
    }, result.passes


def _blocks(state: RunState, options: EdgeOptions) -> EmpiricalRisk:
    """The risk whose blocks give the batch sharpness."""
    return risk_in_blocks(state, NoiseOptions(block=options.batch)) if options.batch else state.risk


def _batch(state: RunState, options: EdgeOptions) -> BatchSharpness | None:
    return None if options.batch == 0 else batch_sharpness(_blocks(state, options), "block")


def _factor(update: FirstUpdate) -> float:
    """The mean factor of the transforms: 1 unless the gradient is clipped or layers have their rates."""
    return 1.0 if update.linear is None else float(update.linear.factor.double().mean())


def _answer(job: EdgeJob, course: _Course, seconds: float) -> Answer:
    rows = course.rows
    columns = (
        "lr", "sharpness", "edge", "eigenvalues", "residuals", "branches", "overlaps", "span", "converged", "factor",
        "step_ratio", "batch_sharpness", "batch_ratio", "sharpness_bound",
    )  # fmt: skip
    steps, edges = [row["step"] for row in rows], [row["edge"] for row in rows]
    sharpness = [row["sharpness"] for row in rows]
    spectral = any(row.get("spectral") for row in rows)
    crossed = []
    if spectral:
        crossed = crossings(steps, edges, sharpness)
    else:
        for branch in range(course.tracked.begun if course.tracked else 0):
            crossed += crossings(steps, edges, [_of_branch(row, branch) for row in rows], branch)
    recipe = job.state.experiment.config.recipe
    values: dict[str, Any] = {
        "step": job.begin,
        "until": job.begin + len(course.losses),
        "every": job.options.every,
        "optimizer": recipe.optimizer.name,
        "momentum": recipe.optimizer.momentum,
        "measure": "spectral" if spectral else "eigenvalue",
        "of": rows[0]["of"] if rows else "loss",
        "preconditioned": any(row["preconditioned"] for row in rows),
        "reasons": sorted({row["reason"] for row in rows if row["reason"]}),
        "batch": None if job.options.batch == 0 else job.options.batch or job.state.risk.blocks.size,
        "steps": steps,
        **{name: [row.get(name) for row in rows] for name in columns},
        "losses": list(course.losses.values()),
        "crossings": [asdict(crossing) for crossing in sorted(crossed, key=lambda c: (c.after, c.branch))],
        "catapults": [asdict(catapult) for catapult in catapults(steps, edges, sharpness, course.losses)],
        "reproduced": {"equal": course.equal, "compared": course.compared},
        "passes": course.passes,
        "seconds": seconds,
    }
    return Answer(KIND, job.name, values)


def _of_branch(row: dict[str, Any], branch: int) -> float | None:
    return row["eigenvalues"][row["branches"].index(branch)] if branch in row["branches"] else None
