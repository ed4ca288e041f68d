"""Sharpness in spectral norms: the one that bounds the steps of Muon, which are steepest descent in such norms.

arXiv 2603.05002 defines the sharpness in any norm, and reports that training without momentum goes to its edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis.krylov import applied, dots
from noiseless.analysis.operator import Operator, random_vectors
from noiseless.objective.space import ParameterSpace


@dataclass(frozen=True)
class SpectralSharpness:
    """The sharpness in spectral norms, as far as a search has come."""

    value: float
    """the largest `v . H v` that was found: a lower bound of the maximum"""
    bound: float
    """an upper bound of the maximum, from the largest eigenvalue of H: `lambda_1 sum_l r_l^2 min(m_l, n_l)`"""
    directions: Tensor
    """where the search has ended from each start, the best first, `[K, P]`"""
    products: int
    """number of vectors that were multiplied"""
    passes: float
    """cost of these products, in passes"""
    converged: bool
    """whether the best direction is a stationary point within the tolerance"""


def spectral_sharpness(
    operator: Operator,
    radii: Mapping[str, float],
    largest: float,
    start: Tensor | None = None,
    *,
    count: int = 4,
    tolerance: float = 1e-3,
    most: int = 100,
    seed: int = 0,
) -> SpectralSharpness:
    """The largest curvature along a step whose matrices have bounded spectral norms.

    For matrices v_l `[m_l, n_l]`, one for each parameter l that has a radius, and 0 for all others:

        max v . H v  over  ||v_l||_2 <= r_l.

    In the norm `max_l ||v_l||_2 / r_l`, the steepest descent step of length lr is `-lr v` with v_l = r_l U V^T the
    orthogonal factor of the gradient's matrix G_l = U diag(s) V^T times r_l. By the quadratic model it changes the loss
    by `-lr ||g||_* + (lr^2 / 2) v . H v`, with the dual norm `||g||_* = sum_l r_l sum s`. So it cannot raise the loss
    while the maximum is below the edge

        2 ||g||_* / lr.

    (arXiv 2603.05002 writes this for steps of length `lr ||g||_*`, for which the edge is 2 / lr; Muon leaves the factor
    out.) For one matrix and `H = I` the maximum is `r^2 min(m, n)`.

    The maximum of a quadratic over such a set is not convex: the search is Frank and Wolfe's from several starts, with
    an exact line search, so that each product raises the value. The result is a lower bound of the maximum.

    Args:
        operator: H.
        radii: r_l by the parameter's name; a parameter of more than two dimensions is a matrix `[out, rest]`.
        largest: the largest eigenvalue of H, for the upper bound.
        start: directions to start with, `[k, P]`, such as the gradient, or where an earlier search has ended.
        count: number of starts; those that `start` does not give are random.
        tolerance: ends a search where no step to a point of the set can raise the linear part by more than this share
            of the value.
        most: largest number of rounds, each of one product for each start.
        seed: of the random starts.

    Returns:
        The best value.

    Raises:
        ValueError: if no parameter has a radius, or a product is not finite.
    """
    space = operator.space
    assert isinstance(space, ParameterSpace)
    if not radii:
        raise ValueError("no parameter has a radius: there is no matrix whose steps are orthogonal")
    given = torch.empty(0, len(space)).to(space.theta) if start is None else start[:count].to(space.theta)
    drawn = random_vectors(space, seed, "steepest", 0, max(0, count - len(given))) if count > len(given) else given[:0]
    V = torch.stack([steepest(v, space, radii)[0] for v in torch.cat([given, drawn])])
    HV = applied(operator, V)
    products, passes, rounds = len(V), operator.passes(len(V)), 1
    while True:
        values = _rows(V, HV)
        S = torch.stack([steepest(h, space, radii)[0] for h in HV])
        gaps = 2 * (_rows(S, HV) - values)
        best = int(values.argmax())
        open_ = gaps > tolerance * values.abs().max()
        if not open_.any() or rounds >= most:
            break
        HS = applied(operator, S)
        products, passes, rounds = products + len(S), passes + operator.passes(len(S)), rounds + 1
        # along V + t (S - V): value + gap t + bend t^2; where it bends up, the end t = 1 is the highest
        bend = values - 2 * _rows(S, HV) + _rows(S, HS)
        t = torch.where(bend < 0, (-gaps / (2 * bend)).clamp(max=1.0), 1.0)
        t = torch.where(gaps > 0, t, 0.0)[:, None].to(V)
        V, HV = torch.lerp(V, S, t), torch.lerp(HV, HS, t)
    order = values.argsort(descending=True, stable=True).to(V.device)
    ranks = {name: min(len(p), p[0].numel()) for name, p in space.split(space.theta.detach()).items() if name in radii}
    bound = largest * sum(radii[name] ** 2 * rank for name, rank in ranks.items())
    return SpectralSharpness(float(values[best]), bound, V[order], products, passes, not bool(open_[best]))


def steepest(gradient: Tensor, space: ParameterSpace, radii: Mapping[str, float]) -> tuple[Tensor, float]:
    """The direction of steepest ascent in spectral norms, and the dual norm of the gradient.

    Args:
        gradient: g, `[P]`.
        space: of the gradient.
        radii: r_l by the parameter's name, see `spectral_sharpness`.

    Returns:
        v `[P]`, with v_l = r_l U V^T for `G_l = U diag(s) V^T` and 0 for parameters without a radius; and
        `||g||_* = sum_l r_l sum s`, which is `g . v`.
    """
    parts, total = [], 0.0
    for name, part in space.split(gradient).items():
        if name not in radii:
            parts.append(torch.zeros_like(part).reshape(-1))
            continue
        U, s, Vh = torch.linalg.svd(part.reshape(len(part), -1).double(), full_matrices=False)
        parts.append((radii[name] * (U @ Vh)).to(gradient).reshape(-1))
        total += radii[name] * float(s.sum())
    return torch.cat(parts), total


def _rows(A: Tensor, B: Tensor) -> Tensor:
    """The inner products of the rows of `[K, P]` and `[K, P]`, float64 `[K]` on the CPU."""
    return torch.stack([dots(a[None], b[None])[0, 0] for a, b in zip(A, B, strict=True)]).cpu()
