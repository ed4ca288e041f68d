"""Gradients of the Hessian: third derivatives of an objective, contracted with vectors, exact over all blocks."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from noiseless.examples.blocks import Batch
from noiseless.objective.base import Objective, check_vectors
from noiseless.objective.penalty import GradientPenalty
from noiseless.objective.products import hessian_gradients, upper
from noiseless.objective.risk import risk_of
from noiseless.objective.usercode import HESSIAN_GRADIENTS


def hessian_gradient(objective: Objective, U: Tensor, weights: Tensor) -> Tensor:
    """The gradient of quadratic forms of the Hessian: `grad_theta sum_ij W_ij u_i . H(theta) u_j` at fixed vectors u.

    By triple backward, block by block, summed exactly: the same bits for any number of workers. With one unit
    eigenvector of a simple eigenvalue and `W = [[1]]` it is the gradient of that eigenvalue, as the change of the
    eigenvector adds nothing to first order. Wrappers that change only the direction, such as SAM, have the Hessian of
    what they wrap.

    Args:
        objective: with Hessian H, at the module's present parameters.
        U: vectors u, `[K, P]`.
        weights: W `[K, K]`, or several matrices `[M, K, K]`; only their symmetric parts matter.

    Returns:
        `[P]`, or `[M, P]` for several matrices.

    Raises:
        ValueError: for other shapes, or a penalty on the full gradient, whose Hessian couples all blocks.
    """
    check_vectors(U, objective.space)
    if weights.ndim not in (2, 3) or weights.shape[-2:] != (len(U), len(U)):
        raise ValueError(
            f"the weights must have shape [{len(U)}, {len(U)}] or [M, {len(U)}, {len(U)}] for {len(U)} vectors, not"
            f" {list(weights.shape)}"
        )
    matrices, risk = weights.reshape(-1, len(U), len(U)), risk_of(objective)
    inner: Objective | None = objective
    while inner is not None and not isinstance(inner, GradientPenalty):
        inner = inner.wrapped
    block_value = inner.block_value() if inner is not None else partial(risk.block_loss.value, k=0)
    vectors = U.to(risk.space.theta)

    def of_block(batch: Batch) -> tuple[Tensor, Tensor]:
        value = partial(block_value, batch)
        return hessian_gradients(risk.block_loss, value, vectors, matrices, HESSIAN_GRADIENTS)

    gradients = risk.mean_vectors(len(matrices), of_block)
    return gradients if weights.ndim == 3 else gradients[0]


def hessian_gradient_passes(objective: Objective, weights: Tensor) -> float:
    """Cost of `hessian_gradient`, in passes: the products of K vectors, and two for each pass that a form depends on.

    A form that uses k of the K products is a function that costs as much as k products, and its reverse-mode derivative
    about twice that: `1 + 2 K + sum_m 2 (1 + 2 k_m)` for a risk; 9 for one vector.

    Args:
        objective: whose Hessian it is.
        weights: W `[K, K]` or `[M, K, K]`.

    Returns:
        Passes.
    """
    used = upper(weights.reshape(-1, *weights.shape[-2:])).ne(0).any(-1).sum(-1)
    forms = sum(2 * objective.hvp_passes(int(count)) for count in used.tolist())
    return objective.hvp_passes(weights.shape[-1]) + forms


def pairs(count: int) -> Tensor:
    """A basis of the symmetric matrices of a size, as weights: `E_ij`, i <= j, whose form is `u_i . H u_j`.

    Args:
        count: K.

    Returns:
        float64 `[K (K + 1) / 2, K, K]`, with a 1 at (i, j).
    """
    rows, columns = torch.triu_indices(count, count)
    basis = torch.zeros(len(rows), count, count, dtype=torch.float64)
    basis[torch.arange(len(rows)), rows, columns] = 1.0
    return basis
