"""A subspace in which a symmetric operator is known: Rayleigh-Ritz on an orthonormal basis that grows.

Expanded by its residuals from one vector it is a Krylov space, and the method is Lanczos' with full
reorthogonalisation; from several vectors, the block form of it. Restarted with its Ritz vectors it is the thick-restart
Lanczos method (Wu and Simon, SIAM J. Matrix Anal. Appl. 2000, doi 10.1137/S0895479898334605).
"""

from __future__ import annotations

import torch
from torch import Tensor

from noiseless.analysis.operator import Operator
from noiseless.objective.base import SLICE


class Subspace:
    """An orthonormal basis `V [m, P]` with its images `A V` and the small matrix `V A V^T [m, m]`.

    Args:
        operator: A.
        room: the largest m; memory is taken for it at once, `2 room P` numbers.
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
        """The operator's products with it, `[m, P]`: a view."""
        return self._images[: self.size]

    @property
    def small(self) -> Tensor:
        """`V A V^T`, symmetric, float64 `[m, m]` on the CPU."""
        small = self._small[: self.size, : self.size]
        return (small + small.T) / 2

    def expand(self, candidates: Tensor, new: float | None = None) -> int:
        """Adds what is new in some vectors, with one product for all of them.

        Args:
            candidates: `[K, P]`; as many are taken as there is room for.
            new: share of a candidate's length that must stand out of the basis, or it is left out as it says nothing
                new; None: the square root of the dtype's precision.

        Returns:
            How many have been added: 0 where they lie in the subspace already.

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
        """Ritz values, float64 `[m]` rising, and the coefficients of their vectors in the basis, `[m, m]` by column."""
        values, coefficients = torch.linalg.eigh(self.small)
        return values, coefficients

    def combined(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `[k, P]` and their images from coefficients `[m, k]`."""
        weights = coefficients.T.to(self._basis)
        return weights @ self.vectors, weights @ self.images

    def restart(self, coefficients: Tensor) -> None:
        """Keeps the span of some Ritz vectors.

        Args:
            coefficients: orthonormal columns `[m, k]` that `ritz` has given.
        """
        vectors, images = self.combined(coefficients)
        small = coefficients.T @ self.small @ coefficients
        self.size = len(vectors)
        self._basis[: self.size], self._images[: self.size] = vectors, images
        self._small[: self.size, : self.size] = small

    def _append(self, candidate: Tensor, least: float) -> bool:
        """Whether a candidate's part outside the basis has been written behind it, with length 1."""
        length = float(dots(candidate[None], candidate[None]).sqrt())
        if not 0 < length < float("inf"):
            return False
        rest = candidate / length
        for _ in range(2):  # once more, as the first time leaves rounding errors of the size of what it takes away
            rest = rest - dots(self.vectors, rest[None]).T.to(rest)[0] @ self.vectors
            left = float(dots(rest[None], rest[None]).sqrt())
            if left < least:
                return False
            rest = rest / left
        self._basis[self.size] = rest
        return True


def applied(operator: Operator, V: Tensor) -> Tensor:
    """An operator's product with vectors `[K, P]`.

    Args:
        operator: A.
        V: vectors `[K, P]`.

    Returns:
        `A V`, `[K, P]`.

    Raises:
        ValueError: if it is not finite.
    """
    images = operator.product(V)
    if not images.isfinite().all():
        raise ValueError("a Hessian product is not finite: the loss has no second derivative at these parameters")
    return images


def dots(A: Tensor, B: Tensor) -> Tensor:
    """`A B^T` of vectors `[m, P]` and `[k, P]`, summed in float64: `[m, k]`."""
    total = torch.zeros(len(A), len(B), dtype=torch.float64, device=A.device)
    for start in range(0, A.shape[1], SLICE):
        part = slice(start, start + SLICE)
        total += A[:, part].double() @ B[:, part].double().T
    return total
