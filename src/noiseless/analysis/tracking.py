"""Eigenpairs that are followed over steps, and what their course says: crossings of the edge, and catapults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from noiseless.analysis.krylov import dots

SAME = 0.5
"""smallest squared overlap at which a vector continues another: above a half, no other one can"""


@dataclass(frozen=True)
class Tracked:
    """The newest eigenvectors of a matrix that changes, each with the branch that it continues."""

    vectors: Tensor
    """of length 1, `[k, P]`"""
    branches: tuple[int, ...]
    """number of the branch of each vector, from 0 in the order in which branches began"""
    overlaps: tuple[float | None, ...]
    """`|x . y|` of each vector with the earlier one that it is matched to; None if there is none"""
    span: float | None
    """share of the earlier vectors' span that the new ones contain: `sum_ij (x_i . y_j)^2 / k`; None for the first"""
    begun: int
    """number of branches so far"""


def tracked(vectors: Tensor, before: Tracked | None = None) -> Tracked:
    """Matches eigenvectors with those of an earlier step.

    The matching is the one-to-one assignment with the largest sum of squared overlaps `(x_i . y_j)^2`. A vector whose
    squared overlap with its match is above a half continues the branch of that match: then no other vector of the
    orthonormal set can have as much. Any other vector begins a new branch. Where eigenvalues are nearly equal, vectors
    turn within their span: overlaps are low and `span` is near 1.

    Args:
        vectors: x, orthonormal `[k, P]`.
        before: the earlier step; None: all vectors begin branches.

    Returns:
        The vectors with their branches and overlaps.
    """
    from scipy.optimize import linear_sum_assignment

    count = len(vectors)
    if before is None:
        return Tracked(vectors, tuple(range(count)), (None,) * count, None, count)
    overlaps = dots(vectors, before.vectors.to(vectors)).cpu()
    squares = overlaps.square()
    rows, columns = linear_sum_assignment(-squares.numpy())
    match = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    branches, begun = [], before.begun
    for row in range(count):
        if row in match and float(squares[row, match[row]]) > SAME:
            branches.append(before.branches[match[row]])
        else:
            branches.append(begun)
            begun += 1
    shares = tuple(float(overlaps[row, match[row]].abs()) if row in match else None for row in range(count))
    span = float(squares.sum()) / min(count, len(before.vectors))
    return Tracked(vectors, tuple(branches), shares, span, begun)


@dataclass(frozen=True)
class Crossing:
    """A value that was on one side of the edge at one step and on the other at the next that was measured."""

    branch: int
    before: int
    """the step before"""
    after: int
    """the step after"""
    up: bool
    """whether it is above the edge after"""


def crossings(
    steps: Sequence[int], edges: Sequence[float | None], values: Sequence[float | None], branch: int = 0
) -> list[Crossing]:
    """The crossings of the edge by one branch.

    Args:
        steps: the steps that were measured, in ascending order.
        edges: the edge at each; None where it is not known.
        values: the branch's value at each; None where it has none.
        branch: its number.

    Returns:
        The crossings, between steps that follow each other among those where both numbers are known.
    """
    known = [(s, v > e) for s, e, v in zip(steps, edges, values, strict=True) if e is not None and v is not None]
    return [Crossing(branch, before, after, above) for (before, was), (after, above) in pairwise(known) if above != was]


@dataclass(frozen=True)
class Catapult:
    """A stretch of steps above the edge in which the loss rises, and after which the sharpness is lower."""

    begin: int
    """the last step before the sharpness was above the edge"""
    peak: int
    """the step with the largest loss"""
    end: int
    """the first step at which the sharpness was below the edge again"""
    loss: float
    """at `begin`"""
    peak_loss: float
    sharpness: float
    """the largest of the stretch"""
    end_sharpness: float


def catapults(
    steps: Sequence[int], edges: Sequence[float | None], values: Sequence[float | None], losses: dict[int, float]
) -> list[Catapult]:
    """The catapults of a run: loss up, sharpness down (Lewkowycz et al., arXiv 2003.02218).

    Args:
        steps: the steps at which the sharpness was measured, in ascending order.
        edges: the edge at each.
        values: the sharpness at each.
        losses: the loss by step, of all steps.

    Returns:
        Each stretch from a crossing up to the next crossing down in which the loss is, at some step, above the loss
        where it began.
    """
    at = {s: v for s, v in zip(steps, values, strict=True) if v is not None}
    found, up = [], None
    for crossing in crossings(steps, edges, values):
        if crossing.up:
            up = crossing
            continue
        if up is None or up.before not in losses:
            continue
        inside = {s: x for s, x in losses.items() if up.before < s <= crossing.after}
        peak = max(inside, key=lambda s: inside[s], default=up.before)
        if inside and inside[peak] > losses[up.before]:
            highest = max(v for s, v in at.items() if up.after <= s <= crossing.before)
            found.append(
                Catapult(up.before, peak, crossing.after, losses[up.before], inside[peak], highest, at[crossing.after])
            )
    return found


def curvature(vector: Tensor, image: Tensor) -> float:
    """`v . A v`, summed in float64, of a vector v `[P]` and its image A v."""
    return float(dots(vector[None], image[None])[0, 0])


def step_ratio(gradient: Tensor, displacement: Tensor, image: Tensor) -> float | None:
    """The share of the edge that a step itself reaches: `d . H d / (-2 g . d)`, for any optimizer.

    By the quadratic model a step d changes the value by `g . d + d . H d / 2`, so it raises the value if this ratio is
    above 1. For plain gradient descent it is the curvature along the gradient divided by 2 / lr.

    Args:
        gradient: g, `[P]`, of the value at the start of the step.
        displacement: d, `[P]`.
        image: H d, `[P]`.

    Returns:
        The ratio; None where d is no descent direction.
    """
    slope = curvature(gradient, displacement)
    return curvature(displacement, image) / (-2 * slope) if slope < 0 and torch.isfinite(image).all() else None
