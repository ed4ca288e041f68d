"""A growing subspace in which a symmetric operator is approximated: Rayleigh-Ritz on an orthonormal basis.

If it starts from one vector and is expanded by residuals, it is a Krylov space, and the method is Lanczos' with full
reorthogonalisation; from several vectors, it is block Lanczos. With restarts from its Ritz vectors, it is the
thick-restart Lanczos method (Wu and Simon, SIAM J. Matrix Anal. Appl. 2000, doi 10.1137/S0895479898334605).
"""

from __future__ import annotations

import torch
from torch import Tensor

from noiseless.analysis.operator import Operator
from noiseless.objective.base import SLICE


class Subspace:
    """An orthonormal basis `V [m, P]` with its images `A V` and the small matrix `V A V^T [m, m]`.

    Attributes:
        size: m.
        products: number of vectors that were multiplied so far.
        passes: cost of these products, in passes.

    Args:
        operator: A.
        room: the largest m; memory for `2 room P` numbers is allocated at once.
    """

    def __init__(self, operator: Operator, room: int):
        self.operator = operator
        self.room = min(room, len(operator.space))
        like = operator.space.theta
        self._basis = like.new_empty(self.room, len(like))
        self._images = torch.empty_like(self._basis)
        self._small = torch.zeros(self.room, self.room, dtype=torch.float64)
        self.size = 0
        self.products = 0
        self.passes = 0.0

    @property
    def vectors(self) -> Tensor:
        """The basis, `[m, P]`: a view."""
        return self._basis[: self.size]

    @property
    def images(self) -> Tensor:
        """The operator's products with the basis, `[m, P]`: a view."""
        return self._images[: self.size]

    @property
    def small(self) -> Tensor:
        """`V A V^T`, symmetric, float64 `[m, m]` on the CPU."""
        small = self._small[: self.size, : self.size]
        return (small + small.T) / 2

    def expand(self, candidates: Tensor, new: float | None = None) -> int:
        """Adds the parts of some vectors that lie outside the subspace, with one product for all of them.

        Args:
            candidates: `[K, P]`; those beyond `room` are ignored.
            new: smallest share of a candidate's length that must lie outside the subspace for it to be added; None: the
                square root of the dtype's precision.

        Returns:
            Number of vectors that were added; 0 if all lie in the subspace already.

        Raises:
            ValueError: if the product is not finite.
        """
        before = self.size
        least = torch.finfo(self._basis.dtype).eps ** 0.5 if new is None else new
        for candidate in candidates:
            if self.size < self.room and self._append(candidate, least):
                self.size += 1
        added = self.size - before
        if added:
            self._images[before : self.size] = applied(self.operator, self._basis[before : self.size])
            self.products += added
            self.passes += self.operator.passes(added)
            block = dots(self.vectors, self._images[before : self.size]).cpu()
            self._small[: self.size, before : self.size] = block
            self._small[before : self.size, : self.size] = block.T
        return added

    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values, ascending float64 `[m]`, and their vectors' coefficients in the basis, columns of `[m, m]`."""
        values, coefficients = torch.linalg.eigh(self.small)
        return values, coefficients

    def combined(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors `[k, P]` with coefficients `[m, k]` in the basis, and their images `[k, P]`."""
        weights = coefficients.T.to(self._basis)
        return weights @ self.vectors, weights @ self.images

    def restart(self, coefficients: Tensor) -> None:
        """Reduces the subspace to the span of some Ritz vectors.

        Args:
            coefficients: of these vectors, orthonormal columns `[m, k]` from `ritz`.
        """
        vectors, images = self.combined(coefficients)
        small = coefficients.T @ self.small @ coefficients
        self.size = len(vectors)
        self._basis[: self.size], self._images[: self.size] = vectors, images
        self._small[: self.size, : self.size] = small

    def _append(self, candidate: Tensor, least: float) -> bool:
        """Writes a candidate's part outside the basis, with length 1, as the next row; False if it is too short."""
        length = float(dots(candidate[None], candidate[None]).sqrt())
        if not 0 < length < float("inf"):
            return False
        rest = candidate / length
        for _ in range(2):  # twice, as the first time leaves rounding errors of the size of what it subtracts
            rest = rest - dots(self.vectors, rest[None]).T.to(rest)[0] @ self.vectors
            left = float(dots(rest[None], rest[None]).sqrt())
            if left < least:
                return False
            rest = rest / left
        self._basis[self.size] = rest
        return True


def applied(operator: Operator, V: Tensor) -> Tensor:
    """An operator's products with vectors, checked to be finite.

    Args:
        operator: A.
        V: vectors `[K, P]`.

    Returns:
        `A V`, `[K, P]`.

    Raises:
        ValueError: if a product is not finite.
    """
    images = operator.product(V)
    if not images.isfinite().all():
        raise ValueError("a Hessian product is not finite: the loss has no second derivative at these parameters")
    return images


def dots(A: Tensor, B: Tensor) -> Tensor:
    """The inner products `A B^T` of vectors `[m, P]` and `[k, P]`, summed in float64: `[m, k]`."""
    total = torch.zeros(len(A), len(B), dtype=torch.float64, device=A.device)
    for start in range(0, A.shape[1], SLICE):
        part = slice(start, start + SLICE)
        total += A[:, part].double() @ B[:, part].double().T
    return total
