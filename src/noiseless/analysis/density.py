"""The density of a spectrum by stochastic Lanczos quadrature, and the trace of an operator by Hutch++."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis.krylov import Subspace, applied, dots
from noiseless.analysis.operator import Operator, random_vectors

TOGETHER = 4
"""vectors in one product of Hutch++; each needs memory for an exact sum"""


@dataclass(frozen=True)
class Density:
    """A spectral density: `density(t) ~ (1 / P) #{eigenvalues near t}`, smoothed."""

    nodes: Tensor
    """Ritz values of all probes, float64 `[probes, steps]`"""
    weights: Tensor
    """their quadrature weights, float64 `[probes, steps]`; each probe's sum to 1"""
    passes: float
    """cost of the products, in passes"""

    def at(self, grid: Tensor, width: float) -> Tensor:
        """The density, smoothed with a Gaussian.

        `(1 / probes) sum_l sum_i w_li exp(-(t - theta_li)**2 / (2 s**2)) / (s sqrt(2 pi))`

        Args:
            grid: t, float64 `[n]`.
            width: s.

        Returns:
            float64 `[n]`; it integrates to 1.
        """
        z = (grid[:, None] - self.nodes.flatten()) / width
        kernel = torch.exp(-z.square() / 2) / (width * math.sqrt(2 * math.pi))
        return kernel @ self.weights.flatten() / len(self.nodes)

    def grid(self, points: int = 400, share: float = 0.01) -> tuple[Tensor, float]:
        """Points for `at`, from 5 widths below the smallest node to 5 widths above the largest, and the width.

        Args:
            points: number of points.
            share: the width, relative to the range of the nodes or to their largest magnitude, whichever is larger.

        Returns:
            The points, float64 `[points]`, and the width.
        """
        low, high = float(self.nodes.min()), float(self.nodes.max())
        width = share * max(high - low, abs(high), abs(low), torch.finfo(torch.float64).tiny)
        return torch.linspace(low - 5 * width, high + 5 * width, points, dtype=torch.float64), width


def density(operator: Operator, probes: int = 4, steps: int = 30, seed: int = 0) -> Density:
    """Stochastic Lanczos quadrature (Ubaru, Chen and Saad, 2017; Ghorbani et al., ICML 2019, arXiv 1901.10159).

    A probe is a random vector v of length 1. After m steps of Lanczos from it, with Ritz values theta_i and the first
    components y_i of the small matrix' eigenvectors, `sum_i y_i**2 f(theta_i)` is the Gauss quadrature of `v^T f(A) v`,
    whose mean over v is `tr f(A) / P`.

    Args:
        operator: A, `[P, P]`.
        probes: random vectors.
        steps: m of each, at most P.
        seed: keys the vectors.

    Returns:
        Nodes and weights.

    Raises:
        ValueError: for fewer than 1 probe or 2 steps, or products that are not finite.
    """
    if probes < 1 or steps < 2:
        raise ValueError(f"a density takes at least 1 probe and 2 steps, not {probes} and {steps}")
    steps = min(steps, len(operator.space))
    nodes, weights, passes = [], [], 0.0
    for number in range(probes):
        space = Subspace(operator, steps)
        candidate = random_vectors(operator.space, seed, "density", number, 1)
        while space.size < steps and space.expand(candidate):
            candidate = space.images[-1:].clone()
        values, coefficients = space.ritz()
        missing = steps - space.size  # Lanczos ends early in an invariant subspace: pad with weight 0
        nodes.append(torch.nn.functional.pad(values, (0, missing), value=float(values[-1])))
        weights.append(torch.nn.functional.pad(coefficients[0].square(), (0, missing)))
        passes += space.passes
    return Density(torch.stack(nodes), torch.stack(weights), passes)


@dataclass(frozen=True)
class Trace:
    """An estimate of a trace."""

    value: float
    error: float
    """its standard error; 0 if the rank of the matrix is not above that of the sketch"""
    products: int
    """number of vectors that were multiplied"""
    passes: float
    """cost of these products, in passes"""


def trace(operator: Operator, products: int = 30, seed: int = 0) -> Trace:
    """Hutch++ (Meyer, Musco, Musco and Woodruff, SOSA 2021, arXiv 2010.09649).

    With m products, Q is an orthonormal basis of `A S` for a random `S [P, m / 3]`, and G a random `[P, m / 3]` whose
    part in the span of Q is subtracted. The estimate is `tr(Q^T A Q) + (3 / m) tr(G^T A G)`: the first term is exact in
    the span of Q, the second is an unbiased estimate of the rest.

    Args:
        operator: A, `[P, P]`.
        products: m, at least 6; it is rounded down to a multiple of 3.
        seed: keys the random vectors, which are standard normal.

    Returns:
        The estimate, and its standard error from the spread over G.

    Raises:
        ValueError: for fewer than 6 products, or products that are not finite.
    """
    third = min(products // 3, len(operator.space))
    if third < 2:
        raise ValueError(f"Hutch++ takes at least 6 products, not {products}")
    sketch = Subspace(operator, third)
    passes, spent = 0.0, 0
    for start in range(0, third, TOGETHER):
        drawn = random_vectors(operator.space, seed, "trace", start, min(TOGETHER, third - start))
        sketch.expand(applied(operator, drawn))
        passes += operator.passes(len(drawn))
        spent += len(drawn)
    total = float(sketch.small.diagonal().sum())
    left = []
    for start in range(0, third, TOGETHER):
        drawn = random_vectors(operator.space, seed, "trace", third + start, min(TOGETHER, third - start))
        for _ in range(2):
            drawn = drawn - dots(drawn, sketch.vectors).to(drawn) @ sketch.vectors
        left.append(dots(drawn, applied(operator, drawn)).diagonal().cpu())
        passes += operator.passes(len(drawn))
        spent += len(drawn)
    rest = torch.cat(left)
    error = float(rest.std() / math.sqrt(len(rest)))
    return Trace(total + float(rest.mean()), error, spent + sketch.products, passes + sketch.passes)
