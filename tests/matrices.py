"""Symmetric matrices with known eigenvalues, as operators of analyses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from problems import generator
from torch import nn

from noiseless.objective import parameter_space


@dataclass
class Matrix:
    """A known symmetric matrix on the space of a linear layer without bias."""

    dense: torch.Tensor
    products: int = 0

    def __post_init__(self):
        self.layer = nn.Linear(len(self.dense), 1, bias=False).to(self.dense.dtype)
        self.space = parameter_space(self.layer)

    def product(self, V):
        self.products += len(V)
        return V @ self.dense

    def passes(self, vectors):
        return 1.0 + 2.0 * vectors


class Diagonal(Matrix):
    """A diagonal matrix, given by its diagonal."""

    def product(self, V):
        self.products += len(V)
        return V * self.dense


def matrix(eigenvalues, seed=0, dtype=torch.float64):
    """A symmetric matrix with these eigenvalues in a random basis."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=generator(seed)))
    return Matrix((basis * values @ basis.T).to(dtype))
