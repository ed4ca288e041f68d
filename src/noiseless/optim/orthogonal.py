"""Directions made of matrices: orthogonalised, or whitened by a layer's inputs. Muon's part of step 7."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of Newton-Schulz as Muon has them (kellerjordan.github.io/posts/muon)"""


def orthogonalised(
    matrix: Tensor, coefficients: tuple[float, float, float] = COEFFICIENTS, steps: int = 5, eps: float = 1e-7
) -> Tensor:
    """Newton-Schulz: each singular value s of `matrix / ||matrix||` becomes p(p(...p(s))), p(s) = a s + b s^3 + c s^5.

    Args:
        matrix: `[m, n]`.
        coefficients: a, b, c.
        steps: how often p is applied.
        eps: smallest norm by which the matrix is divided.

    Returns:
        `[m, n]`, with the singular vectors of the matrix.
    """
    a, b, c = coefficients
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.T


def whitened(
    update: Tensor, moment: Tensor, damping: float, direct: Callable[[Tensor], Tensor], eps: float = 1e-7
) -> Tensor:
    """`c direct(u B) B` with `B = (A / a + damping I)**(-1/2)`, a the mean of A's diagonal.

    Computed with `L^-T` and `L^-1` for the two B, `L L^T = A / a + damping I` (Cholesky): the same for a `direct` that
    follows rotations, as `direct(u Q) = direct(u) Q` does for orthogonal Q.

    Args:
        update: u, `[m, d]`.
        moment: A, symmetric and positive semidefinite `[d, d]`.
        damping: above 0.
        direct: `[m, d]` to `[m, d]`.
        eps: smallest norm that is divided by.

    Returns:
        `[m, d]`, of the Frobenius norm of `direct(u B)`.

    Raises:
        ValueError: if rounding leaves A with damping not positive definite.
    """
    moment = moment.double()
    mean = moment.diagonal().mean()
    scaled = moment / mean if mean > 0 else torch.zeros_like(moment)
    factor, failed = torch.linalg.cholesky_ex(scaled + damping * torch.eye(len(moment)).to(moment))
    if failed:
        raise ValueError(
            f"whiten {damping:g} is too small a damping for second moments of {len(moment)} inputs: give more"
        )
    turned = torch.linalg.solve_triangular(factor, update.to(moment.dtype).T, upper=False).T
    found = direct(turned.to(update.dtype))
    back = torch.linalg.solve_triangular(factor, found.to(moment.dtype), upper=False, left=False).to(update.dtype)
    return back * (found.norm() / back.norm().clamp(min=eps))
