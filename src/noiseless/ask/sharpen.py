"""Why the sharpness of a run changes: the change of its largest eigenvalue in each step, split into causes."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

from noiseless.analysis import (
    Hessian,
    eigenvalue_gradient,
    eigenvalue_gradient_passes,
    sharpening,
    top_eigenvalues,
    tracked,
)
from noiseless.analysis.tracking import curvature
from noiseless.ask.following import Course, StepsJob, StepsQuestion, prepare_steps
from noiseless.ask.options import SharpenOptions
from noiseless.ask.state import RunState
from noiseless.files.address import StateAddress
from noiseless.objective.workers import Workers
from noiseless.run.replay import FirstUpdate
from noiseless.run.shares import shares_of

KIND = "sharpen"
COLUMNS = (
    "lr", "sharpness", "after", "change", "predicted", "second_order", "causes", "flow", "alignment", "offset",
    "gradient_square", "gap", "overlap", "residual", "converged",
)  # fmt: skip
"""values of a step that is measured"""


def prepare(address: StateAddress, options: SharpenOptions, workers: Workers | None = None) -> StepsJob:
    """Loads the run at the newest state that it has kept at or before a step, see `prepare_steps`.

    Args:
        address: of the first step; without one, the run's first one.
        options: which steps.
        workers: that share the sweeps; every worker must call this.

    Returns:
        The job.
    """
    question = StepsQuestion(KIND, partial(_measure, options), lambda state, course: _values(course, options))
    return prepare_steps(question, address, options, workers=workers)


def step_passes(job: StepsJob, options: SharpenOptions) -> float:
    """Cost of what is computed at a step besides the eigenvalues, in passes."""
    gradients = 2 if options.both_ends else 1
    return gradients * eigenvalue_gradient_passes(job.state.risk) + 1


def _measure(options: SharpenOptions, state: RunState, update: FirstUpdate, course: Course) -> None:
    """Computes the eigenvalues at both ends of an update, and what the gradients at its ends predict."""
    experiment, risk = state.experiment, state.risk
    space, hessian, passes = experiment.space, Hessian(risk, "block"), 0.0
    search = {"tolerance": options.tolerance, "most": options.most, "seed": options.seed}
    with space.at(update.before):
        top = top_eigenvalues(hessian, options.pairs, start=course.memory.get("vectors"), **search)  # type: ignore[arg-type]
        u, value = top.largest.vectors[0], float(top.largest.values[0])
        slope = eigenvalue_gradient(risk, u, "block")
        gradient = risk.evaluate().gradient
        passes += top.passes + eigenvalue_gradient_passes(risk) + risk.passes
        shares = shares_of(experiment, update, gradient)
        parts, applied = ({}, None) if shares is None else (shares.parts, shares.applied)
        split = sharpening(slope, u, value, gradient, parts, update.displacement, applied)
    later = top_eigenvalues(hessian, options.pairs, start=top.largest.vectors, **search)  # type: ignore[arg-type]
    passes += later.passes
    match = tracked(later.largest.vectors, tracked(top.largest.vectors))
    place = match.branches.index(0) if 0 in match.branches else 0
    after = float(later.largest.values[place])
    second = None
    if options.both_ends:
        slope_after = eigenvalue_gradient(risk, later.largest.vectors[place], "block")
        passes += eigenvalue_gradient_passes(risk)
        second = (split.total + curvature(slope_after, update.displacement)) / 2
    values = top.largest.values.tolist()
    course.memory["vectors"] = later.largest.vectors
    course.passes += passes
    course.rows.append({
        "step": state.step,
        "lr": experiment.optimizer.param_groups[0]["lr"],
        "sharpness": value,
        "after": after,
        "change": after - value,
        "predicted": split.total,
        "second_order": second,
        "causes": dict(split.causes),
        **{name: x for name, x in asdict(split).items() if name in ("flow", "alignment", "offset", "gradient_square")},
        "gap": value - values[1] if len(values) > 1 else None,
        "overlap": match.overlaps[place],
        "residual": float(top.largest.residuals[0]),
        "converged": top.converged and later.converged,
    })  # fmt: skip


def _values(course: Course, options: SharpenOptions) -> dict[str, Any]:
    """The values of the answer, besides those of all answers about steps."""
    return {"both_ends": options.both_ends, **{name: course.column(name) for name in COLUMNS}}
