"""The curvature matrices that people ask for beside the Hessian: generalised Gauss-Newton, Fisher, empirical Fisher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args, overload

import torch
from torch import Tensor

from noiseless.analysis.check import check_symmetric
from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.analysis.operator import Hessian, Operator, VectorSpace
from noiseless.errors import UnknownNameError
from noiseless.objective import EmpiricalRisk, Objective, ParameterSpace, risk_of
from noiseless.objective.gaussnewton import gauss_newton_diagonal, gauss_newton_passes, gauss_newton_product
from noiseless.objective.outputs import GaussNewtonKind, outputs_of

Curvature = Literal["hessian", "ggn", "fisher", "empirical-fisher"]


@dataclass(frozen=True)
class GaussNewton:
    """The generalised Gauss-Newton, Fisher or empirical Fisher matrix of a mean loss, exact over all blocks.

    With J_b the Jacobian of the outputs of block b in theta, l_b its mean loss, w_b its weight and `W = sum_b w_b`:

    - `"ggn"`: `(1 / W) sum_b w_b J_b^T (d^2 l_b / df^2) J_b`. It is the Hessian less `(1 / W) sum_b w_b sum_m (dl_b /
      df_m) (d^2 f_m / dtheta^2)`, and positive semi-definite if the loss is convex in the outputs.
    - `"fisher"`: the same with the expectation of the loss' Hessian over targets that the model's distribution draws,
      in closed form, without samples. For cross entropy and squared error it equals the generalised Gauss-Newton matrix
      (Martens, JMLR 2020, arXiv 1412.1193); `noiseless.losses.fisher_loss` lists the losses.
    - `"empirical-fisher"`: `sum_i w_i g_i g_i^T / sum_i w_i`, where g_i is the gradient of example i's loss for its own
      target. It is not the Fisher matrix (Kunstner et al., NeurIPS 2019, arXiv 1905.12558).

    Where batch norm is in training mode, an example's outputs and loss depend on all examples of its norm block, and
    J_b and g_i hold these derivatives. The matrix is that of the loss: a penalty that wraps it has no part in it.
    """

    objective: Objective
    """a risk, or an objective that wraps it"""
    kind: GaussNewtonKind = "ggn"
    """which of the three"""
    batch_norm: BatchNorm | None = None
    """the module's mode during a product, see `modes.BatchNorm`; None: its present mode"""
    check: bool = True
    """whether the first product for a module, its mode and the loss is preceded by `check_symmetric`"""

    def __post_init__(self) -> None:
        outputs_of(self._risk.loss, self.kind)  # raises where the loss has no such matrix

    @property
    def _risk(self) -> EmpiricalRisk:
        return risk_of(self.objective)

    @property
    def space(self) -> ParameterSpace:
        """The objective's parameter space."""
        return self.objective.space

    def product(self, V: Tensor) -> Tensor:
        """`G v` for each row v of V, in one sweep.

        Args:
            V: `[K, P]`.

        Returns:
            `[K, P]`.

        Raises:
            DerivativeError: where torch lacks a derivative, or the products are wrong (`check_symmetric`).
        """
        with module_mode(self.space.module, self.batch_norm):
            if self.check:
                check_symmetric(self._risk, self.kind, lambda part, V: gauss_newton_product(part, V, self.kind))
            return gauss_newton_product(self._risk, V, self.kind)

    def passes(self, vectors: int) -> float:
        """Cost of a product, in passes: `1 + (4 / 3) K`."""
        return gauss_newton_passes(self._risk, vectors)

    def diagonal(self) -> tuple[Tensor, float]:
        """The diagonal, exact by closed form, `[P]`, and its cost in passes; see `gauss_newton_diagonal`."""
        with module_mode(self.space.module, self.batch_norm):
            return gauss_newton_diagonal(self._risk, self.kind)


def curvature_matrix(
    objective: Objective, curvature: Curvature = "hessian", batch_norm: BatchNorm | None = None
) -> Hessian | GaussNewton:
    """A curvature matrix of an objective, by name.

    Args:
        objective: any; the Hessian is of its value with a penalty, the others are of its loss.
        curvature: which one.
        batch_norm: the module's mode during a product; None: its present mode.

    Returns:
        The operator.

    Raises:
        UnknownNameError: for another name.
        ValueError: if the loss has no such matrix.
    """
    if curvature not in get_args(Curvature):
        raise UnknownNameError("curvature", curvature, get_args(Curvature))
    if curvature == "hessian":
        return Hessian(objective, batch_norm)
    return GaussNewton(objective, curvature, batch_norm)


class TorchFunction:
    """A symmetric matrix as a function on torch vectors, in the form in which they come.

    Args:
        operator: A.
    """

    def __init__(self, operator: Operator):
        self.operator = operator

    @overload
    def __call__(self, vector: Tensor) -> Tensor: ...

    @overload
    def __call__(self, vector: Sequence[Tensor]) -> list[Tensor]: ...

    def __call__(self, vector: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """`A v`.

        Args:
            vector: `[P]`; several as rows, `[K, P]`; or a list with one tensor for each parameter, in its shape, as
                `torch.autograd.grad` returns them.

        Returns:
            The product, in the same form.

        Raises:
            ValueError: for another shape.
        """
        space = self.operator.space
        if isinstance(vector, Tensor):
            if vector.ndim not in (1, 2) or vector.shape[-1] != len(space):
                raise ValueError(
                    f"a vector must have shape [{len(space)}] or [K, {len(space)}], not {list(vector.shape)}"
                )
            product = self.operator.product(vector.reshape(-1, len(space)).to(space.theta))
            return product.reshape(vector.shape)
        shapes = _shapes(space)
        if [tuple(part.shape) for part in vector] != shapes:
            raise ValueError(f"a list must hold one tensor for each of {len(shapes)} parameters, in its shape")
        flat = torch.cat([part.reshape(-1) for part in vector]).to(space.theta)
        product = self.operator.product(flat[None])[0]
        return [part.reshape(shape) for part, shape in zip(product.split(_sizes(vector)), shapes, strict=True)]


def as_torch_function(operator: Operator | Objective) -> Callable[..., Tensor | list[Tensor]]:
    """Wraps an operator, or an objective's Hessian, as a function on torch vectors.

    Args:
        operator: A, or an objective, which stands for its Hessian at the parameters at the time of each product.

    Returns:
        A function that takes `[P]`, `[K, P]` or a list of tensors in the parameters' shapes, see `TorchFunction`.
    """
    return TorchFunction(Hessian(operator) if isinstance(operator, Objective) else operator)


def _sizes(parts: Sequence[Tensor]) -> list[int]:
    return [part.numel() for part in parts]


def _shapes(space: VectorSpace) -> list[tuple[int, ...]]:
    """The shapes of the parameters of a space; of a `Part`, those of its parameters."""
    return [tuple(shape) for shape in space.shapes]
