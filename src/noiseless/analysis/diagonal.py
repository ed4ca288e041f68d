"""The diagonal of a curvature matrix and the traces of its layers: exact, or estimated from keyed random signs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis.curvature import GaussNewton
from noiseless.analysis.krylov import applied
from noiseless.analysis.operator import Operator, random_vectors
from noiseless.analysis.parts import layer_positions

TOGETHER = 4
"""vectors in one product; each needs memory for an exact sum"""


@dataclass(frozen=True)
class LayerTrace:
    """The trace of a layer's block."""

    value: float
    error: float
    """its standard error; 0 if it is exact"""
    parameters: int
    """number of parameters, p: the mean eigenvalue is `value / p`"""


@dataclass(frozen=True)
class Diagonal:
    """The diagonal of a symmetric matrix, and the sums of its parts by layer."""

    values: Tensor
    """float64 `[P]`"""
    errors: Tensor
    """standard error of each value, float64 `[P]`; 0 if it is exact"""
    layers: Mapping[str, LayerTrace]
    """name of a layer (a module that holds parameters itself) -> its trace"""
    trace: float
    """the sum of all values"""
    trace_error: float
    """its standard error; 0 if it is exact"""
    passes: float
    """cost, in passes"""


def diagonal(operator: Operator, probes: int | None = None, seed: int = 0) -> Diagonal:
    """The diagonal of a matrix A, exactly or by random signs.

    Exactly: a Gauss-Newton or Fisher matrix by the closed form of `gauss_newton_diagonal`, another one by products with
    all P unit vectors. From M probes z with independent signs, the estimate is `(1 / M) sum_k z_k (A z_k)`, elementwise
    (Bekas, Kokiopoulou and Saad, 2007, doi 10.1016/j.apnum.2007.01.003), and a layer's trace is the sum of its part
    (Hutchinson, 1990, doi 10.1080/03610919008812866). Both are unbiased. One probe's element i has the variance
    `sum_(j != i) A_ij**2`, and its trace of a layer l the variance `2 sum_(i != j in l) A_ij**2 + sum_(i in l, j not)
    A_ij**2`. All layers share their products. Errors are standard errors from the spread over the probes.

    Args:
        operator: A, `[P, P]`.
        probes: M, at least 2; None: exactly.
        seed: keys the signs.

    Returns:
        Diagonal and traces, with their errors.

    Raises:
        ValueError: for fewer than 2 probes, or a product that is not finite.
    """
    if probes is not None and probes < 2:
        raise ValueError(f"an estimate with its error takes at least 2 probes, not {probes}")
    if probes is None:
        values, passes = _exact(operator)
        positions = layer_positions(operator.space)
        parts = values.split([math.prod(shape) for shape in operator.space.shapes])
        sums = {layer: sum(float(parts[k].sum()) for k in places) for layer, places in positions.items()}
        traces = {layer: LayerTrace(value, 0.0, _count(parts, positions[layer])) for layer, value in sums.items()}
        return Diagonal(values, torch.zeros_like(values), traces, float(values.sum()), 0.0, passes)
    return _estimated(operator, probes, seed)


def _exact(operator: Operator) -> tuple[Tensor, float]:
    """The diagonal, float64 `[P]`, and its cost in passes."""
    if isinstance(operator, GaussNewton):
        closed, passes = operator.diagonal()
        return closed.double(), passes
    size, like, passes = len(operator.space), operator.space.theta.detach(), 0.0
    values = torch.empty(size, dtype=torch.float64, device=like.device)
    for first in range(0, size, TOGETHER):
        places = torch.arange(first, min(first + TOGETHER, size), device=like.device)
        units = torch.zeros(len(places), size, dtype=like.dtype, device=like.device)
        units[range(len(places)), places] = 1
        values[places] = applied(operator, units).double().gather(1, places[:, None])[:, 0]
        passes += operator.passes(len(places))
    return values, passes


def _estimated(operator: Operator, probes: int, seed: int) -> Diagonal:
    """The diagonal and the traces from random signs."""
    space, passes = operator.space, 0.0
    total = torch.zeros(len(space), dtype=torch.float64, device=space.theta.device)
    squares, positions = torch.zeros_like(total), layer_positions(space)
    sizes = [math.prod(shape) for shape in space.shapes]
    sums: list[list[float]] = []
    for first in range(0, probes, TOGETHER):
        drawn = random_vectors(space, seed, "diagonal", first, min(TOGETHER, probes - first))
        signs = torch.where(drawn < 0, -1, 1).to(drawn)
        for estimate in signs.double() * applied(operator, signs).double():
            total += estimate
            squares += estimate.square()
            sums.append([float(part.sum()) for part in estimate.split(sizes)])
        passes += operator.passes(len(signs))
    by_probe = torch.tensor(sums, dtype=torch.float64)  # [M, parameters]
    values = total / probes
    variance = (squares - probes * values.square()).clamp(min=0) / (probes - 1)
    traces = {}
    for layer, places in positions.items():
        value, error = _mean(by_probe[:, places].sum(1))
        traces[layer] = LayerTrace(value, error, sum(sizes[k] for k in places))
    return Diagonal(values, (variance / probes).sqrt(), traces, *_mean(by_probe.sum(1)), passes)


def _mean(samples: Tensor) -> tuple[float, float]:
    """Mean and standard error."""
    return float(samples.mean()), float(samples.std() / math.sqrt(len(samples)))


def _count(parts: Sequence[Tensor], places: Sequence[int]) -> int:
    return sum(parts[k].numel() for k in places)
