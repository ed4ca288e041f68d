"""What one pass of mini-batches does beyond the full batch, from the same parameters.

Let N examples be cut into m batches of B, and let phi_m be the end of m full-batch steps of rate lr from theta, and
theta_m the end of m steps of rate lr on the batches b = 1 ... m in an order. To second order in lr

    theta_m - theta = -lr sum_b g_b + lr^2 sum_(c < b) H_b g_c,        phi_m - theta = -m lr g + lr^2 m (m - 1) / 2 H g

with g_b and H_b the gradient and Hessian of a batch's mean loss at theta. Without replacement `sum_b g_b = m g` for any
cut, and the mean over a cut's order and its reverse is, with T = m lr,

    E theta_m - phi_m = -T grad [(lr / 4) mean_b ||g_b||^2] + T grad [(lr / 4) ||g||^2] + O(lr^3).

The first term is the implicit regularisation of mini-batches (Smith et al., arXiv 2101.12176), the second what
full-batch steps of the same rate have of it themselves, by the curvature alone: `T (lr / 2) H g`. Batches of examples
that are drawn with replacement are independent, so both terms are absent (compare arXiv 2312.16143).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noiseless import keyed
from noiseless.analysis.modes import module_mode
from noiseless.examples.blocks import Batch
from noiseless.objective import EmpiricalRisk
from noiseless.objective.products import block_products

Tick = Callable[[float], None]
"""called with the passes that were spent"""


def check_batch(batch: int, examples: int) -> None:
    """Raises unless a batch size divides the number of examples into two batches or more.

    Raises:
        ValueError: with the nearest sizes that do.
    """
    if 1 <= batch < examples and examples % batch == 0:
        return
    sizes = sorted((size for size in range(1, examples // 2 + 1) if examples % size == 0), key=lambda s: abs(s - batch))
    raise ValueError(
        f"the batch size must divide the {examples} examples into two batches or more, and {batch} does not: choose"
        f" {' or '.join(map(str, sorted(sizes[:2])))}"
    )


@dataclass(frozen=True)
class OnePass:
    """The displacements of one pass from a risk's present parameters, in plain steps of one rate.

    The parameters are kept in float64 from step to step, and rounded to their dtype for each gradient. The module is in
    evaluation mode, so that the loss is a mean over examples: batch norm by running statistics, no dropout.

    Raises:
        ValueError: if the loss gives examples weights.
    """

    risk: EmpiricalRisk
    """over all N examples"""
    lr: float
    """the rate"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_start", self.risk.space.theta.detach().double().clone())

    @property
    def start(self) -> Tensor:
        """theta, float64 `[P]`."""
        start: Tensor = self._start  # type: ignore[attr-defined]
        return start

    def gradient(self, risk: EmpiricalRisk, theta: Tensor) -> Tensor:
        """The gradient of a risk's mean loss at theta, float64 `[P]`."""
        space = self.risk.space
        with module_mode(space.module, "running"), space.at(theta.to(space.theta.dtype)):
            evaluation = risk.evaluate()
        if evaluation.weight != evaluation.count:
            raise ValueError(
                "the loss gives its examples weights, and one pass is compared for a mean over examples of equal weight"
            )
        return evaluation.gradient.double()

    def batches(self, numbers: Tensor, batch: int) -> EmpiricalRisk:
        """The mean over batches of B examples.

        Args:
            numbers: of the examples, int64 `[N]`; each B of them are a batch.
            batch: B.

        Returns:
            A risk whose blocks are the batches.
        """
        selection = replace(self.risk.selection, order=numbers, examples_per_pass=len(numbers))
        return replace(self.risk, data=selection, block=batch, norm_block=batch)

    def full(self, updates: Sequence[int], tick: Tick = lambda passes: None) -> dict[int, Tensor]:
        """The displacements of full-batch steps.

        Args:
            updates: numbers m of steps.
            tick: called after each step.

        Returns:
            m -> `phi_m - theta`, float64 `[P]`.
        """
        theta, ends = self.start.clone(), {}
        for number in range(1, max(updates) + 1):
            theta -= self.lr * self.gradient(self.risk, theta)
            if number in updates:
                ends[number] = theta - self.start
            tick(1.0)
        return ends

    def stochastic(self, cut: EmpiricalRisk, backwards: bool = False) -> Tensor:
        """The displacement of one step on each batch of a cut, in its order or its reverse.

        Args:
            cut: from `batches`.
            backwards: whether the last batch comes first.

        Returns:
            `theta_m - theta`, float64 `[P]`.
        """
        theta, parts = self.start.clone(), list(cut.selection.numbers.split(cut.blocks.size))
        for part in reversed(parts) if backwards else parts:
            theta -= self.lr * self.gradient(cut.at(replace(cut.selection, order=part)), theta)
        return theta - self.start

    def both_ways(self, cut: EmpiricalRisk) -> Tensor:
        """The mean displacement over a cut's order and its reverse, float64 `[P]`; two passes."""
        return (self.stochastic(cut) + self.stochastic(cut, backwards=True)) / 2

    def implicit(self, cut: EmpiricalRisk) -> Tensor:
        """The implicit regularisation of a cut: `-T grad (lr / 4) mean_b ||g_b||^2 = -T (lr / 2) mean_b H_b g_b`.

        Args:
            cut: from `batches`.

        Returns:
            float64 `[P]`; four passes.
        """
        space, compiles = self.risk.space, cut.execution.compile_products
        theta = space.theta.detach()

        def of_batch(batch: Batch) -> tuple[Tensor, Tensor]:
            gradient = cut.block_loss.differentiate(theta, batch).gradient
            return block_products(cut.block_loss, batch, gradient, compiles)

        with module_mode(space.module, "running"):
            products = cut.mean_vectors(1, of_batch)[0]
        return products.double() * (-len(cut.blocks) * self.lr * self.lr / 2)

    def curvature(self, updates: int, gradient: Tensor) -> Tensor:
        """What full-batch steps have of it: `T grad (lr / 4) ||g||^2 = T (lr / 2) H g`, T = m lr.

        Args:
            updates: m.
            gradient: g at theta, `[P]`.

        Returns:
            float64 `[P]`; three passes.
        """
        space = self.risk.space
        with module_mode(space.module, "running"):
            product = self.risk.hvp(gradient.to(space.theta.dtype)[None])[0]
        return product.double() * (updates * self.lr * self.lr / 2)


def drawn_order(seed: int, number: int, examples: int, replacement: bool) -> Tensor:
    """Keyed order number `number` of N examples: a permutation, or N draws with replacement, int64 `[N]`."""
    if replacement:
        return keyed.integers(seed, "decompose-replacement", number, torch.arange(examples), examples)
    return keyed.permutation(seed, "decompose", number, examples)


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error over the orders, by the delete-one jackknife."""

    value: float | None
    error: float | None
    """None where the value, or one with an order left out, is not defined"""


@dataclass(frozen=True)
class Comparison:
    """A mean displacement D beside its prediction P, from M orders with a pair (D_o, P_o) each."""

    displacement: Estimate
    """`||E D||`"""
    prediction: Estimate
    """`||E P||`"""
    residual: Estimate
    """`||E (D - P)||`"""
    cosine: Estimate
    """of E D and E P"""
    coefficient: Estimate
    """`E D . E P / ||E P||^2`: 1 where the prediction has the right length along itself"""
    explained: Estimate
    """`(E D . E P)^2 / (||E D||^2 ||E P||^2)`: share of `||E D||^2` along the prediction"""


def compare_orders(displacements: Tensor, predictions: Tensor) -> Comparison:
    """Compares the means of two sets of paired vectors, without the bias that noise gives the length of a mean.

    Products of means are estimated by products of different orders, `sum_(o != p) x_o . y_p / (M (M - 1))`, which is
    unbiased for `E x . E y`: the squared length of the mean itself is too large by its variance.

    Args:
        displacements: D_o, float64 `[M, P]`, M at least 3.
        predictions: P_o, `[M, P]`.

    Returns:
        Lengths, cosine and shares, None where a squared length is not positive.

    Raises:
        ValueError: for fewer than three orders, or other shapes.
    """
    orders = len(displacements)
    if orders < 3 or displacements.shape != predictions.shape:
        raise ValueError(f"a comparison needs the pairs of at least three orders, not {orders}")
    vectors = torch.cat([displacements, predictions])
    gram = (vectors @ vectors.T).tolist()
    names = ("displacement", "prediction", "residual", "cosine", "coefficient", "explained")
    every = list(range(orders))
    full = _shares(gram, every, orders)
    left = [_shares(gram, [o for o in every if o != out], orders) for out in every]
    return Comparison(**{name: _jackknife(full[k], [values[k] for values in left]) for k, name in enumerate(names)})


def _shares(gram: list[list[float]], chosen: list[int], orders: int) -> list[float | None]:
    """The numbers of `Comparison` from the products of some orders; rows of P follow those of D."""

    def product(first: int, second: int) -> float:
        pairs = [gram[first + o][second + p] for o in chosen for p in chosen if o != p]
        return math.fsum(pairs) / len(pairs)

    dd, pp, dp = product(0, 0), product(orders, orders), product(0, orders)
    pd = product(orders, 0)  # equal up to rounding
    dp = (dp + pd) / 2
    rr = dd - 2 * dp + pp
    both = dd > 0 and pp > 0
    return [
        *(math.sqrt(square) if square > 0 else None for square in (dd, pp, rr)),
        dp / math.sqrt(dd * pp) if both else None,
        dp / pp if pp > 0 else None,
        dp**2 / (dd * pp) if both else None,
    ]


def _jackknife(value: float | None, left: list[float | None]) -> Estimate:
    """A value with the error `sqrt((M - 1) / M sum_o (v_o - mean v)^2)` of the values without one order."""
    known = [v for v in left if v is not None]
    if value is None or len(known) < len(left):
        return Estimate(value, None)
    mean, count = math.fsum(known) / len(known), len(known)
    return Estimate(value, math.sqrt((count - 1) / count * math.fsum((v - mean) ** 2 for v in known)))
