"""Products and diagonals of generalised Gauss-Newton and Fisher matrices, summed exactly over all blocks.

A block's matrix is `J^T C J`: J is the Jacobian of its outputs in theta, C the curvature of its mean loss in them
(`outputs`). With w_b the blocks' weights and W their sum, the matrix of the data set is `(1 / W) sum_b w_b J_b^T C_b
J_b` (Schraudolph, Neural Computation 2002, doi 10.1162/08997660260028683).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.func import vjp

from noiseless.examples.blocks import Batch
from noiseless.objective.base import FORWARD, check_vectors
from noiseless.objective.gradients import BlockLoss
from noiseless.objective.outputs import GaussNewtonKind, Outputs, outputs_of
from noiseless.objective.partial import Report
from noiseless.objective.products import BlockValue, any_order, compiled_products
from noiseless.objective.risk import EmpiricalRisk
from noiseless.objective.scores import total_weight
from noiseless.objective.usercode import Need, refuse_once, user_code

GAUSS_NEWTON = Need(
    "Gauss-Newton and Fisher products need", "second",
    "use what needs gradients only: evaluate, measure, landscapes, flatness, gradient noise",
)  # fmt: skip
BACKWARD = 1 - FORWARD
"""cost of a backward, or of a product with a Jacobian, in passes"""


def gauss_newton_product(risk: EmpiricalRisk, V: Tensor, kind: GaussNewtonKind = "ggn") -> Tensor:
    """`G v` for each row v of V, in one sweep; with the same bits for any workers.

    `J v` is the derivative of `J^T w` in w (two backwards), so that any operation works whose Hessian products do.

    Args:
        risk: of which the matrix is taken.
        V: vectors `[K, P]`.
        kind: which matrix, see `outputs_of`.

    Returns:
        `[K, P]`.

    Raises:
        ValueError: if V has another shape, or the kind does not fit the loss.
        DerivativeError: as ModuleError, a ValueError: where torch does not have a derivative.
    """
    of_outputs = replace(risk.block_loss, scoring=outputs_of(risk.loss, kind))
    compiler = risk.block_loss.compiler if risk.execution.compile_products else None

    def of_block(batch: Batch, V: Tensor) -> tuple[Tensor, Tensor]:
        if compiler is not None and batch.regular and risk.block_loss.follows():
            scoring = of_outputs.scoring
            assert isinstance(scoring, Outputs)
            name = ("gauss-newton", kind)
            compiled = compiled_products(of_outputs, compiler, batch, V, name, partial(_in_function, scoring))
            if compiled is not None:
                return compiled
        return _products(of_outputs, batch, V)

    check_vectors(V, risk.space)
    V = V.to(risk.space.theta)
    return risk.mean_vectors(len(V), lambda batch: of_block(batch, V))


def gauss_newton_passes(risk: EmpiricalRisk, vectors: int) -> float:
    """Cost of `gauss_newton_product`, in passes: a gradient, and for each vector two products with the Jacobian."""
    return (1.0 + 2.0 * BACKWARD * vectors) * risk.passes


def gauss_newton_diagonal(risk: EmpiricalRisk, kind: GaussNewtonKind = "ggn") -> tuple[Tensor, float]:
    """The diagonal of a Gauss-Newton or Fisher matrix, exactly: `sum_k l_k (J^T u_k)**2` for each block.

    `C = sum_k l_k u_k u_k^T` is the spectral decomposition of the curvature in the outputs of a block; there are at
    most as many terms as the block has outputs, M (for the empirical Fisher, terms of the loss). Each takes a backward,
    so small blocks are cheap: M is the number of classes times the block's size. Only batch norm in training mode, and
    other functions of several examples, depend on that size.

    Args:
        risk: of which the matrix is taken.
        kind: which matrix, see `outputs_of`.

    Returns:
        The diagonal, `[P]`, and its cost in passes.

    Raises:
        ValueError: if the kind does not fit the loss.
        DerivativeError: as ModuleError, a ValueError: where torch does not have a derivative.
    """
    scoring, space = outputs_of(risk.loss, kind), risk.space
    of_outputs = replace(risk.block_loss, scoring=scoring)

    def report(batch: Batch) -> Report:
        with any_order(of_outputs), user_code(of_outputs.module, GAUSS_NEWTON):
            outputs, weight = of_outputs.value(batch, 0)
            total, count = torch.zeros(len(space), dtype=torch.float64, device=space.device), 0
            for value, vector in spectrum(scoring, outputs):
                total += value * space.gradient(outputs, vector).double().square()
                count += 1
        share = torch.tensor([[count * batch.size]], dtype=torch.float64)
        return Report({"diagonal": (total[None], weight[None])}, {"weight": weight[None], "backwards": share})

    summed = risk.sweep(report, {"diagonal": len(space)}, {"weight": 1, "backwards": 1}, chunk=1)
    backwards = float(summed.scalars["backwards"].sum()) / risk.blocks.count
    diagonal = (summed.vectors["diagonal"] / total_weight(summed.scalars["weight"][0])).to(space.theta.dtype)
    return diagonal, (FORWARD + BACKWARD * backwards) * risk.passes


def spectrum(scoring: Outputs, outputs: Tensor) -> Iterator[tuple[float, Tensor]]:
    """The spectral decomposition of C, the curvature of a block's mean loss in its outputs.

    Args:
        scoring: of the block.
        outputs: f, `[M]`.

    Yields:
        Eigenvalue, eigenvector `[M]`; eigenvalues of 0, up to rounding, are left out.
    """
    at = outputs.detach()
    columns = [scoring.curvature(at, unit) for unit in torch.eye(len(at), dtype=at.dtype, device=at.device)]
    C = torch.stack(columns).double()
    values, vectors = torch.linalg.eigh((C + C.T) / 2)
    least = len(C) * torch.finfo(at.dtype).eps * float(values.abs().max())
    for value, vector in zip(values.tolist(), vectors.T, strict=True):
        if abs(value) > least:
            yield value, vector.to(at)


def _products(of_outputs: BlockLoss, batch: Batch, V: Tensor) -> tuple[Tensor, Tensor]:
    """The products of a block, `[K, P]`, and its weight."""
    space, scoring = of_outputs.space, of_outputs.scoring
    assert isinstance(scoring, Outputs)
    with any_order(of_outputs), user_code(of_outputs.module, GAUSS_NEWTON):
        outputs, weight = of_outputs.value(batch, 0)
        dual = torch.zeros_like(outputs, requires_grad=True)
        pulled = space.gradient(outputs, dual, create_graph=True)  # J^T w
        refuse_once(outputs, pulled, GAUSS_NEWTON)
        if not pulled.requires_grad:  # no output depends on a parameter
            return torch.zeros_like(V), weight
        products = []
        for v in V:
            (pushed,) = torch.autograd.grad(pulled, dual, v, retain_graph=True, materialize_grads=True)  # J v
            products.append(space.gradient(outputs, scoring.curvature(outputs.detach(), pushed)))
        return torch.stack(products), weight


def _in_function(scoring: Outputs, outputs: BlockValue, theta: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """`_products` by torch.func, from the outputs of a block as a function of the parameters."""
    at, pull, weight = vjp(outputs, theta, has_aux=True)  # type: ignore[misc]
    push = vjp(lambda w: pull(w)[0], torch.zeros_like(at))[1]
    curved = partial(scoring.curvature_in_function, at)
    return torch.stack([pull(curved(push(v)[0]))[0] for v in V]), weight
