"""Flows beside a run: how far each flow's prediction of losses and weights is from the run's own steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from noiseless.analysis.centralflow import EDGE, SEARCH_EVERY
from noiseless.analysis.flow import FlowPoint, StableFlow
from noiseless.ask.flowjob import KIND, FlowJob, follow
from noiseless.ask.options import SharpnessOptions
from noiseless.ask.sharpness import cost as product_cost
from noiseless.files.answers import Answer
from noiseless.objective import Objective, hessian_gradient_passes
from noiseless.objective.thirds import pairs


def carry_out(
    job: FlowJob,
    on_start: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[float], None] = lambda seconds: None,
) -> Answer:
    """Follows the run and its flows to the end of the window, see `flowjob.follow`.

    Args:
        job: every worker must call this.
        on_start: called once, with the number of times done earlier and of all times.
        on_step: called with the seconds of each further one.

    Returns:
        The answer.
    """
    follow(job, on_start, on_step)
    return answer(job)


def answer(job: FlowJob) -> Answer:
    """The answer with the predictions of the flows beside the run.

    Args:
        job: at its end.

    Returns:
        The answer; losses and squared gradient norms of the run with their means over three steps.
    """
    saved, rows = job.saved, job.saved["rows"]
    moved = [row["moved"] for row in rows]
    flows = {}
    for name in job.flows:
        points = [row["flows"][name] for row in rows if name in row["flows"]]
        columns = {key: [point[key] for point in points] for key in (*FlowPoint.__dataclass_fields__, "distance")}
        share = [d / m if m else None for d, m in zip(columns["distance"], moved, strict=False)]
        flows[name] = columns | {
            "share": share,
            "parted": parting(share, job.options.share),
            "stopped": saved["stopped"].get(name),
            "passes": saved["passes"][name],
        }
    observed = {key: [row[key] for row in rows] for key in ("loss", "square", "moved")}
    observed |= {f"mean_{key}": averaged(observed[key]) for key in ("loss", "square")}
    recorded = {row["step"] - job.state.step: row.get("train_loss") for row in job.state.address.directory.rows()}
    known = [(recorded[k], row["loss"]) for k, row in enumerate(rows) if k in recorded]
    return Answer(
        KIND,
        job.name,
        {
            "step": job.state.step,
            "optimizer": job.rule.kind,
            **asdict(job.options),
            "lr": [row["lr"] for row in rows],
            "observed": observed,
            "by_flow": flows,
            "same_flow": "gradient" in job.options.flows and "gradient" not in job.flows,
            "search": job.largest and job.largest[0],
            "beyond": beyond([row["flows"]["central"]["eigenvalues"] for row in rows if "central" in row["flows"]]),
            "crowded": saved["crowded"],
            "repeated": {"rows": len(known), "equal": all(a == b for a, b in known)},
            "passes": sum(saved["passes"].values()) + saved["replayed"] + (job.largest[1] if job.largest else 0.0),
            "seconds": round(saved["seconds"], 3),
        },
    )


def beyond(eigenvalues: list[list[float]]) -> float | None:
    """The largest eigenvalue of a central flow after it has been at or below the edge for the first time.

    Args:
        eigenvalues: by time, in descending order.

    Returns:
        The eigenvalue; None if the flow was always beyond the edge, or there is no flow.
    """
    largest = [values[0] for values in eigenvalues]
    inside = [k for k, value in enumerate(largest) if value <= EDGE]
    return max(largest[inside[0] :]) if inside else None


def averaged(values: list[float]) -> list[float]:
    """Means over three steps with the weights 1/4, 1/2, 1/4, in which an oscillation of period 2 cancels.

    Args:
        values: one for each step.

    Returns:
        As many; the first and the last are as they are.
    """
    inner = [(a + 2 * b + c) / 4 for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return values if len(values) < 3 else [values[0], *inner, values[-1]]


def parting(share: list[float | None], threshold: float) -> int | None:
    """The first time from which on a flow's distance from the run stays above a share of the run's distance.

    Args:
        share: distance from the run as a share, by time; None where the run has not moved.
        threshold: the share.

    Returns:
        The time; None if the last share is not above the threshold.
    """
    within = [k for k, value in enumerate(share) if value is None or value <= threshold]
    start = within[-1] + 1 if within else 0
    return start if start < len(share) else None


@dataclass(frozen=True)
class FlowCost:
    """Estimated cost of an answer."""

    calm: float
    """passes if no eigenvalue gets near the edge"""
    edge: float
    """passes with one direction at the edge, all the time"""
    two: float
    """passes with two"""
    seconds: float
    """of one pass, extrapolated from the measured time of one block"""


def cost(job: FlowJob) -> FlowCost:
    """Estimates the cost of an answer, from counts of what a step of each flow takes.

    A central flow takes two gradients for each substep; the eigenvectors about two rounds of products for each step far
    below the edge, for each substep near it; and the third derivatives. A stable flow takes one or two substeps of
    three gradients in a step as long as eigenvalues are at the edge, and more beyond.

    Args:
        job: before its start.

    Returns:
        The estimate.
    """
    objective: Objective = job.state.risk
    product = product_cost(job.state, SharpnessOptions())

    def passes(critical: int) -> float:
        followed = critical + (2 if critical == 0 else 1)
        tracking = 2 * objective.hvp_passes(followed)
        total = 2.0
        for flow in job.flows.values():
            if isinstance(flow, StableFlow):
                total += 3.5
                continue
            substeps = job.options.substeps
            thirds = hessian_gradient_passes(objective, pairs(critical)) if critical else 0.0
            total += 2 * substeps + (substeps * (tracking + thirds) if critical else tracking)
            total += 8 * objective.hvp_passes(1) / SEARCH_EVERY
        return total * job.total

    return FlowCost(passes(0), passes(1), passes(2), product.seconds / product.passes)
