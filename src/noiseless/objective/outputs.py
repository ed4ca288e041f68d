"""The outputs of a block as one vector, and the curvature of the block's mean loss in them.

The generalised Gauss-Newton and Fisher matrices are `J^T C J`, with J the Jacobian of the outputs of a block in theta.
The block is forwarded as in any sweep, so J is that of all its outputs together: through batch norm in training mode,
an example's outputs depend on all examples of its norm block, and J has these derivatives, too.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.func import grad, vjp
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from noiseless.errors import UnknownNameError
from noiseless.examples.trees import Tree
from noiseless.losses.likelihood import fisher_loss
from noiseless.losses.scoring import Scoring
from noiseless.losses.terms import PerExample, terms

GaussNewtonKind = Literal["ggn", "fisher", "empirical-fisher"]


class Outputs(Scoring):
    """A scoring whose "mean loss" is a block's outputs, one vector `f [M]`, and the curvature C of the loss in them.

    Args:
        loss: of the objective.

    Attributes:
        examples: number of examples of the block that was computed last.
    """

    def __init__(self, loss: PerExample):
        super().__init__(loss, {})
        self.examples = 0
        self._leaves: list[Any] = []
        self._form: TreeSpec | None = None
        self._target: Tree = None

    def __call__(self, output: Any, target: Tree, examples: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The outputs of a block, and its scores.

        Args:
            output: what the module returns: its floating-point tensors are the outputs.
            target: as for `Scoring`.
            examples: as for `Scoring`.

        Returns:
            f, `[M]`, and the scores, as `Scoring` has them.
        """
        self._leaves, self._form = tree_flatten(output)
        self._target, self.examples = target, examples
        vector = torch.cat([leaf.reshape(-1) for leaf in self._leaves if _is_output(leaf)])
        self._vector = vector.detach()
        return vector, super().__call__(self._with(self._vector), target, examples)[1]

    def mean(self, vector: Tensor) -> Tensor:
        """The mean loss of the block that was computed last, with other outputs `[M]`: a scalar."""
        return super().__call__(self._with(vector), self._target, self.examples)[0]

    def curvature(self, vector: Tensor, u: Tensor) -> Tensor:
        """`C u`, with C the Hessian of the block's mean loss in its outputs, by double backward.

        Args:
            vector: f, `[M]`, without gradient.
            u: `[M]`.

        Returns:
            `[M]`; 0 for a loss that is linear in the outputs.
        """
        vector = vector.detach().requires_grad_()
        value = self.mean(vector)
        if not value.requires_grad:
            return torch.zeros_like(u)
        (slope,) = torch.autograd.grad(value, vector, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(u)
        (product,) = torch.autograd.grad(slope, vector, u, allow_unused=True, materialize_grads=True)
        return product

    def curvature_in_function(self, vector: Tensor, u: Tensor) -> Tensor:
        """As `curvature`, by torch.func, for code that is traced."""
        product: Tensor = vjp(grad(self.mean), vector)[1](u)[0]
        return product

    def shares(self) -> Tensor:
        """The weight of each example as a share of its block's, `[n]`; 0 if all weights are 0."""
        loss = terms(self._loss, self._with(self._vector), self._target, self.examples)
        weights = torch.ones_like(loss.values) if loss.weights is None else loss.weights
        return _shares(weights, self.examples)

    def places(self) -> Tensor | None:
        """Where the outputs of each example are in f, int64 `[n, M / n]`; None if they are not so many for each one."""
        n, start, parts = self.examples, 0, []
        for leaf in self._leaves:
            if not _is_output(leaf):
                continue
            if leaf.ndim == 0 or len(leaf) != n:
                return None
            parts.append(torch.arange(start, start := start + leaf.numel(), device=leaf.device).reshape(n, -1))
        return torch.cat(parts, 1)

    def _with(self, vector: Tensor) -> Any:
        """What the module returned last, with other outputs."""
        assert self._form is not None
        sizes = [leaf.numel() for leaf in self._leaves if _is_output(leaf)]
        parts = iter(vector.split(sizes))
        filled = [next(parts).reshape(leaf.shape).to(leaf.dtype) if _is_output(leaf) else leaf for leaf in self._leaves]
        return tree_unflatten(filled, self._form)


class LossTerms(Outputs):
    """As `Outputs`, with the terms of the mean as outputs: `f_i = w_i v_i`, and `C = diag(1 / w_i) / sum_i w_i`.

    Then `J^T C J` is the empirical Fisher of the block, `sum_i w_i g_i g_i^T / sum_i w_i`, where g_i is the gradient of
    v_i. A term is an example, or an element that has a weight of its own.
    """

    def __call__(self, output: Any, target: Tree, examples: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The terms of a block, and its scores.

        Args:
            output: what the module returns.
            target: as for `Scoring`.
            examples: as for `Scoring`.

        Returns:
            f, `[M]`, and the scores, as `Scoring` has them.
        """
        self.examples = examples
        _, scores = Scoring.__call__(self, output, target, examples)
        loss = terms(self._loss, output, target, examples)
        weights = torch.ones_like(loss.values) if loss.weights is None else loss.weights.to(loss.values.dtype)
        total = weights.sum()
        inverse = torch.where(weights > 0, 1 / torch.where(weights > 0, weights, 1), 0)
        self._inverse = (inverse / torch.where(total > 0, total, 1)).detach()
        self._weights, self._leaves = weights, [loss.values]
        return loss.values, scores

    def shares(self) -> Tensor:
        """The weight of each example as a share of its block's, `[n]`; 0 if all weights are 0."""
        return _shares(self._weights, self.examples)

    def places(self) -> Tensor | None:
        """Where the terms of each example are in f, int64 `[n, M / n]`; None if they are not so many for each one."""
        terms = self._leaves[0]
        if len(terms) % self.examples:
            return None
        return torch.arange(len(terms), device=terms.device).reshape(self.examples, -1)

    def curvature(self, vector: Tensor, u: Tensor) -> Tensor:
        """`C u`.

        Args:
            vector: f, `[M]`.
            u: `[M]`.

        Returns:
            `[M]`.
        """
        return self._inverse * u

    def curvature_in_function(self, vector: Tensor, u: Tensor) -> Tensor:
        """As `curvature`."""
        return self._inverse * u


def outputs_of(loss: PerExample, kind: GaussNewtonKind) -> Outputs:
    """The outputs of blocks and the curvature in them, for one of the three matrices `J^T C J`.

    Args:
        loss: of the objective.
        kind: `"ggn"`: C is the Hessian of the mean loss in the outputs; `"fisher"`: its expectation under the model's
            distribution (`fisher_loss`); `"empirical-fisher"`: as in `LossTerms`.

    Returns:
        A scoring for `BlockLoss`.

    Raises:
        UnknownNameError: for another kind.
        ValueError: for a Fisher matrix of a loss that is not a negative log-likelihood.
    """
    if kind not in get_args(GaussNewtonKind):
        raise UnknownNameError("curvature", kind, get_args(GaussNewtonKind))
    if kind == "empirical-fisher":
        return LossTerms(loss)
    return Outputs(fisher_loss(loss) if kind == "fisher" else loss)


def _is_output(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _shares(weights: Tensor, examples: int) -> Tensor:
    """Weights of terms, added up by example, as shares of their sum."""
    if len(weights) % examples:
        raise ValueError(f"the loss returns {len(weights)} weights, not as many for each of {examples} examples")
    by_example = weights.reshape(examples, -1).sum(1)
    total = by_example.sum()
    return by_example / torch.where(total > 0, total, 1)
