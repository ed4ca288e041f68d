"""Kronecker factors of a curvature matrix as an operator, with dense blocks and eigenvalues of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.analysis.parts import Part
from noiseless.objective import Objective, risk_of
from noiseless.objective.kronecker import KroneckerFactor, Sharing
from noiseless.objective.kronecker import kronecker_factors as factors_of
from noiseless.objective.outputs import GaussNewtonKind


@dataclass(frozen=True)
class KroneckerFactors:
    """The Kronecker-factored approximation (KFAC) of a matrix, block-diagonal by layer: `B (x) A` for each layer."""

    space: Part
    """the parameters that it covers: weights and biases of linear and convolutional layers"""
    factors: Mapping[str, KroneckerFactor]
    """name of a layer -> A, B and the names of its parameters"""
    missing: tuple[str, ...]
    """names of the other parameters"""
    cost: float
    """cost of the factors, in passes; products with them cost none"""

    def product(self, V: Tensor) -> Tensor:
        """The products with each row of `V [K, p]`: `[K, p]`."""
        parts = dict(zip(self.space.names, V.split([shape.numel() for shape in self.space.shapes], 1), strict=True))
        for factor in self.factors.values():
            columns = [parts[name].reshape(len(V), len(factor.gradient), -1) for name in factor.parameters]
            rows = torch.cat(columns, 2).double()
            image = torch.einsum("oq,kqc,cd->kod", factor.gradient, rows, factor.input).to(V.dtype)
            pieces = image.split([column.shape[2] for column in columns], 2)
            parts |= {name: part.reshape(len(V), -1) for name, part in zip(factor.parameters, pieces, strict=True)}
        return torch.cat([parts[name] for name in self.space.names], 1)

    def passes(self, vectors: int) -> float:
        """Cost of a product, in passes: 0, as the data set is not read."""
        return 0.0

    def dense(self, layer: str) -> Tensor:
        """The block of a layer, `B (x) A`, float64, on its weight and then its bias, as they are in the space."""
        factor = self.factors[layer]
        d, o = len(factor.input), len(factor.gradient)
        order = torch.arange(o * d, device=factor.input.device).reshape(o, d)
        weight = len(factor.parameters) == 1
        places = order.flatten() if weight else torch.cat([order[:, :-1].flatten(), order[:, -1]])
        return torch.kron(factor.gradient, factor.input)[places][:, places]

    def eigenvalues(self, layer: str) -> Tensor:
        """All eigenvalues of a layer's block, in descending order: products of those of A and B."""
        factor = self.factors[layer]
        products = torch.linalg.eigvalsh(factor.gradient)[:, None] * torch.linalg.eigvalsh(factor.input)
        return products.flatten().sort(descending=True).values

    def trace(self, layer: str) -> float:
        """The trace of a layer's block, `tr A tr B`."""
        return float(self.factors[layer].input.trace() * self.factors[layer].gradient.trace())


def kronecker_factors(
    objective: Objective,
    kind: GaussNewtonKind = "ggn",
    sharing: Sharing = "expand",
    batch_norm: BatchNorm | None = None,
) -> KroneckerFactors:
    """The Kronecker factors of all linear and convolutional layers, exactly summed over the data set, in one sweep.

    `noiseless.objective.kronecker` has the formulas. The expectation over the model's distribution is in closed form,
    without samples. Memory: three float64 numbers for each element of the triangles of A `[d, d]` and B `[o, o]`.

    Args:
        objective: a risk, or an objective that wraps it, whose loss counts.
        kind: which matrix is approximated, see `GaussNewton`.
        sharing: for layers that are applied at several places (convolutions, sequences): `"expand"` as in arXiv
            1602.01407, or `"reduce"`, both in arXiv 2311.00636.
        batch_norm: the module's mode; None: its present mode. In training mode, batch norm makes examples depend on
            each other: then each output of a block takes a backward, instead of one for each class.

    Returns:
        The factors.

    Raises:
        UnknownNameError: for another kind or form.
        ValueError: if the kind does not fit the loss, or there is no such layer.
    """
    risk = risk_of(objective)
    with module_mode(risk.module, batch_norm):
        factors, passes = factors_of(risk, kind, sharing)
    covered = {name for factor in factors.values() for name in factor.parameters}
    names = tuple(name for name in risk.space.names if name in covered)
    missing = tuple(name for name in risk.space.names if name not in covered)
    return KroneckerFactors(Part(risk.space, names), factors, missing, passes)
