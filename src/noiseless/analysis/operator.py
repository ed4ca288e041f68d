"""Symmetric operators on the parameter space: an objective's Hessian, and the Hessian as an optimizer sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from noiseless import keyed
from noiseless.analysis.check import check_products
from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.objective.base import Objective
from noiseless.objective.space import ParameterSpace

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class Operator(Protocol):
    """A symmetric matrix A `[P, P]`, given by its products with vectors."""

    @property
    def space(self) -> ParameterSpace:
        """The parameter space on which it acts; it gives length, dtype and device of the vectors."""
        ...

    def product(self, V: Tensor) -> Tensor:
        """`A v` for each row v of `V [K, P]`: `[K, P]`."""
        ...

    def passes(self, vectors: int) -> float:
        """Cost of one product with this many vectors, in passes."""
        ...


@dataclass(frozen=True)
class Hessian:
    """The Hessian H of an objective's value at the module's present parameters, exact over all blocks."""

    objective: Objective
    batch_norm: BatchNorm | None = None
    """the module's mode during a product, see `modes.BatchNorm`; None: its present mode"""
    check: bool = True
    """whether the first product for a module, its mode and the loss is preceded by `check_products`"""

    @property
    def space(self) -> ParameterSpace:
        """The objective's parameter space."""
        return self.objective.space

    def product(self, V: Tensor) -> Tensor:
        """`H v` for each row v of V, in one sweep.

        Args:
            V: `[K, P]`.

        Returns:
            `[K, P]`.

        Raises:
            DerivativeError: where torch lacks a derivative, or the products are wrong (`check_products`).
        """
        with module_mode(self.space.module, self.batch_norm):
            if self.check:
                check_products(self.objective)
            return self.objective.hvp(V)

    def passes(self, vectors: int) -> float:
        """Cost of `Objective.hvp`, in passes."""
        return self.objective.hvp_passes(vectors)


@dataclass(frozen=True)
class Preconditioned:
    """`D^(-1/2) (H + w I) D^(-1/2)`: the Hessian as an optimizer with the diagonal preconditioner D sees it.

    Its eigenvalues are those of `D^(-1) (H + w I)`, the matrix that decides whether the optimizer's steps grow.
    """

    operator: Operator
    """H"""
    root: Tensor
    """`D^(-1/2)`, `[P]`"""
    shift: float | Tensor = 0.0
    """w: a weight decay that is added to the gradient; one number, or `[P]`"""

    @property
    def space(self) -> ParameterSpace:
        """The operator's parameter space."""
        return self.operator.space

    def product(self, V: Tensor) -> Tensor:
        """The products with each row of `V [K, P]`, in one sweep: `[K, P]`."""
        scaled = V * self.root
        return self.root * (self.operator.product(scaled) + self.shift * scaled)

    def passes(self, vectors: int) -> float:
        """Cost of the operator's product, in passes."""
        return self.operator.passes(vectors)


def as_linear_operator(operator: Operator | Objective) -> LinearOperator:
    """Wraps an operator, or an objective's Hessian, for the solvers of `scipy.sparse.linalg`.

    Args:
        operator: A, or an objective, which stands for its Hessian at the parameters at the time of each product.

    Returns:
        The operator on numpy vectors `[P]` and matrices `[P, K]`, with the parameters' dtype.
    """
    from scipy.sparse.linalg import LinearOperator  # imported here, as runs do not need it

    matrix: Operator = Hessian(operator) if isinstance(operator, Objective) else operator
    like = matrix.space.theta.detach()

    def matmat(X: np.ndarray) -> np.ndarray:
        V = torch.from_numpy(np.array(X.T, order="C", copy=True)).to(like)
        return matrix.product(V).cpu().numpy().T

    def matvec(x: np.ndarray) -> np.ndarray:
        return matmat(x.reshape(-1, 1))[:, 0]

    return LinearOperator(
        (len(matrix.space),) * 2, matvec=matvec, rmatvec=matvec, matmat=matmat, rmatmat=matmat,
        dtype=torch.empty(0, dtype=like.dtype).numpy().dtype,
    )  # fmt: skip


def random_vectors(space: ParameterSpace, seed: int, stream: str, first: int, count: int) -> Tensor:
    """Keyed standard normal vectors `[count, P]`, numbered from `first`: the same bits on every device."""
    like = space.theta
    drawn = []
    for number in range(first, first + count):
        with keyed.torch_generators(seed, stream, 0, number, torch.device("cpu")):
            drawn.append(torch.randn(len(space), dtype=like.dtype))
    return torch.stack(drawn).to(like.device)
