"""The edge of stability along a run: eigenvalues that are followed from step to step, beside the edge of its steps."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import torch

from noiseless.analysis import (
    BatchSharpness,
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
from noiseless.ask.following import Course, StepsJob, StepsQuestion, followed, prepare_steps
from noiseless.ask.noise import risk_in_blocks
from noiseless.ask.options import EdgeOptions, NoiseOptions
from noiseless.ask.state import RunState
from noiseless.files.address import StateAddress
from noiseless.objective import EmpiricalRisk, GradientPenalty
from noiseless.objective.workers import Workers
from noiseless.optim import Searched, entry_of
from noiseless.run.edge import stability_of
from noiseless.run.replay import FirstUpdate

KIND = "edge"
COLUMNS = (
    "lr", "sharpness", "edge", "eigenvalues", "residuals", "branches", "overlaps", "span", "converged", "factor",
    "step_ratio", "batch_sharpness", "batch_ratio", "sharpness_bound",
)  # fmt: skip
"""values of a step that is measured"""


def prepare(address: StateAddress, options: EdgeOptions, workers: Workers | None = None) -> StepsJob:
    """Loads the run at the newest state that it has kept at or before a step. Nothing is computed or written.

    Args:
        address: of the first step that is measured; without a step, the run's first one.
        options: which steps, and what is measured.
        workers: that share the sweeps; every worker must call this.

    Returns:
        The job.

    Raises:
        ValueError: as `prepare_steps`, and if the run does not have the blocks that the options ask for.
    """
    question = StepsQuestion(KIND, partial(_measure, options), partial(_values, options))
    job = prepare_steps(question, address, options, f"-batch-{options.batch}" if options.batch else "", workers)
    if options.batch:
        _blocks(job.state, options)
    return job


def _measure(options: EdgeOptions, state: RunState, update: FirstUpdate, course: Course) -> None:
    """Measures where a step began, and adds a row to the course."""
    experiment = state.experiment
    with experiment.space.at(update.before):
        objective, hessian = followed(state)
        of: Literal["loss", "objective"] = "objective" if isinstance(objective, GradientPenalty) else "loss"
        stability = stability_of(experiment, hessian, update.linear, of)
        earlier = _tracked(course)
        top = top_eigenvalues(
            stability.operator, options.pairs, tolerance=options.tolerance, most=options.most, seed=options.seed,
            start=None if earlier is None else earlier.vectors,
        )  # fmt: skip
        pairs = top.largest
        now = tracked(pairs.vectors, earlier)
        course.memory["tracked"] = [now.vectors, list(now.branches), list(now.overlaps), now.span, now.begun]
        row: dict[str, Any] = {
            "step": state.step,
            "lr": experiment.optimizer.param_groups[0]["lr"],
            "sharpness": float(pairs.values[0]),
            "edge": stability.edge,
            "reason": stability.reason,
            "of": of,
            "preconditioned": stability.root is not None,
            "factor": _factor(update),
            "eigenvalues": pairs.values.tolist(),
            "residuals": pairs.residuals.tolist(),
            "branches": list(now.branches),
            "overlaps": list(now.overlaps),
            "span": now.span,
            "converged": top.converged,
        }
        passes = top.passes
        if update.updates == 1 and not isinstance(experiment.optimizer, Searched):
            image = hessian.product(update.displacement[None])[0]
            passes += hessian.passes(1)
            row["step_ratio"] = step_ratio(update.step.evaluation.gradient, update.displacement, image)
        spectral, cost = _spectral(state, options, hessian, update, float(pairs.values[0]), course)
        batch = _batch(state, options)
        row |= spectral
        if batch is not None:
            row |= {"batch_sharpness": batch.mean, "batch_ratio": batch.ratio}
            passes += batch.passes
        course.passes += passes + cost
        course.rows.append(row)


def _tracked(course: Course) -> Tracked | None:
    """The eigenvectors of the step that was measured before."""
    kept = course.memory.get("tracked")
    return None if kept is None else Tracked(kept[0], tuple(kept[1]), tuple(kept[2]), kept[3], kept[4])


def _spectral(
    state: RunState, options: EdgeOptions, hessian: Operator, update: FirstUpdate, largest: float, course: Course
) -> tuple[dict[str, Any], float]:
    """Sharpness and edge in spectral norms, for an optimizer like Muon, and their cost in passes; else nothing."""
    experiment = state.experiment
    optimizer, space = experiment.optimizer, experiment.space
    entry, recipe = entry_of(optimizer), experiment.config.recipe
    if entry.radii is None or recipe.objective.sam or recipe.transforms.block_clip is not None:
        return {}, 0.0
    of = entry.radii(optimizer)
    radii = {name: of[p] for name, p in zip(space.names, space.parameters, strict=True) if p in of}
    steepest_now, dual = steepest(update.step.evaluation.gradient, space, radii)
    start = steepest_now[None]
    if "direction" in course.memory:
        start = torch.cat([start, course.memory["direction"][None].to(start)])
    result = spectral_sharpness(
        hessian, radii, largest, start, tolerance=options.tolerance, most=options.most, seed=options.seed
    )
    course.memory["direction"] = result.directions[0]
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


def _values(options: EdgeOptions, state: RunState, course: Course) -> dict[str, Any]:
    """The values of the answer, besides those of all answers about steps."""
    rows, recipe, tracks = course.rows, state.experiment.config.recipe, _tracked(course)
    steps, edges, sharpness = (course.column(name) for name in ("step", "edge", "sharpness"))
    spectral = any(row.get("spectral") for row in rows)
    crossed = crossings(steps, edges, sharpness) if spectral else []
    for branch in range(tracks.begun if tracks and not spectral else 0):
        crossed += crossings(steps, edges, [_of_branch(row, branch) for row in rows], branch)
    return {
        "momentum": recipe.optimizer.momentum,
        "measure": "spectral" if spectral else "eigenvalue",
        "of": rows[0]["of"] if rows else "loss",
        "preconditioned": any(row["preconditioned"] for row in rows),
        "reasons": sorted({row["reason"] for row in rows if row["reason"]}),
        "batch": None if options.batch == 0 else options.batch or state.risk.blocks.size,
        **{name: course.column(name) for name in COLUMNS},
        "crossings": [asdict(crossing) for crossing in sorted(crossed, key=lambda c: (c.after, c.branch))],
        "catapults": [asdict(catapult) for catapult in catapults(steps, edges, sharpness, course.losses)],
    }


def _of_branch(row: dict[str, Any], branch: int) -> float | None:
    return row["eigenvalues"][row["branches"].index(branch)] if branch in row["branches"] else None
