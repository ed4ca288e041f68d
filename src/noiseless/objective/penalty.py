"""The gradient penalty: SGD's implicit regularisation, made explicit. Step 4 of a training step.

The one constant of this file: a penalty of strength s at learning rate lr adds `(lr / 8) s ||g||**2` to the value and
therefore `(lr / 4) s H g` to the gradient. (arXiv 2109.14119; its motivation is in Smith et al., ICLR 2021, and Barrett
and Dherin, ICLR 2021.)
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from noiseless.objective.base import Evaluation, Measurement, Objective, square_norms
from noiseless.objective.blocks import Batch
from noiseless.objective.exactsum import exact_total
from noiseless.objective.gradients import BlockGradients, hessian_product
from noiseless.objective.risk import EmpiricalRisk

Method = Literal["forward", "central", "exact"]

PROBES: dict[Method, int] = {"forward": 1, "central": 2, "exact": 0}
"""further forwards of a block, whose batch-norm statistics the published code keeps"""
VALUE_CONSTANT = 1 / 8
"""of `lr s ||g||**2` in the value; the gradient has twice that"""
PASSES: dict[Method, float] = {"forward": 2.0, "central": 3.0, "exact": 3.0}
"""cost in gradient evaluations; a Hessian product by double backward costs about two"""


@dataclass(eq=False)
class GradientPenalty(Objective):
    """A risk plus a penalty on gradient norms.

    With g_b and H_b the gradient and Hessian of block b's mean loss, g the full gradient, and means over blocks by
    count, the value is

        L + (lr / 8) * (strength * mean_b ||g_b||**2 + full_strength * ||g||**2)

    and its gradient, with `v_b = strength * g_b + full_strength * g`,

        g + (lr / 4) * mean_b H_b v_b.

    `H_b v` is `(grad L_b(theta + h v) - g_b) / h` with `h = eps / ||v||` (`"forward"`, one more gradient a block),
    `(grad L_b(theta + h v) - grad L_b(theta - h v)) / (2 h)` (`"central"`, two more), or taken by double backward
    (`"exact"`). Only the last is the gradient of the value up to rounding. A full strength costs one sweep more.

    Raises:
        ValueError: for a negative or non-finite number, an eps that is not positive, an unknown method.
    """

    risk: EmpiricalRisk
    """what is penalised"""
    strength: float
    """s of the blocks' gradients"""
    _: KW_ONLY
    lr: float
    """learning rate of the step: the penalty's scale"""
    full_strength: float = 0.0
    """s of the full gradient"""
    method: Method = "forward"
    """how Hessian products are taken"""
    eps: float = 1e-2
    """length of the finite-difference probe, in the norm of theta's space"""
    published: bool = False
    """as the paper's published code has it: the value is reported with twice its constant, lr / 4, and the probes
    leave their statistics in batch norm's running averages, after those of the block"""

    def __post_init__(self) -> None:
        for name in ("strength", "lr", "full_strength"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"the penalty's {name} must be a finite number of at least 0, not {value}")
        if not 0 < self.eps < float("inf"):
            raise ValueError(f"the penalty's eps must be a positive number, not {self.eps}")
        if self.method not in PASSES:
            raise ValueError(f"the penalty's method must be one of {', '.join(PASSES)}, not {self.method!r}")
        self.space = self.risk.space
        if self.published:
            self.risk = replace(self.risk, visits=1 + PROBES[self.method])

    @property
    def exact(self) -> bool:
        """True with the method "exact" over an exact risk, unless the value has the published constant."""
        return self.method == "exact" and self.risk.exact and not self.published

    def evaluate(self) -> Evaluation:
        """Value and gradient from one sweep, or two where the full gradient is penalised."""
        passes = PASSES[self.method]
        full: Tensor | None = None
        if self.full_strength:
            full = replace(self.risk, block_clip=None, visits=1).evaluate().gradient
            passes += 1.0

        def correction(theta: Tensor, batch: Batch, found: BlockGradients) -> tuple[Tensor, Tensor, list[Tensor]]:
            return self._correction(theta, batch, found, full)

        return self.risk.sweep(correction, passes)

    def measure(self) -> Measurement:
        """Loss and penalty from the gradients of one sweep of the risk, without probes; the bits of `evaluate`."""
        found = replace(self.risk, block_clip=None, visits=1).evaluate()
        square = self.strength * found.block_square_norms
        if self.full_strength:
            square = square + self.full_strength * square_norms(found.gradient).cpu()
        penalty = exact_total(self._value(square) * found.block_counts) / found.count
        return Measurement(found.loss, penalty, found.hits, found.count, found.passes)

    def _value(self, square: Tensor) -> Tensor:
        """What weighted squares of norms, `strength ||g_b||**2 + full_strength ||g||**2`, add to the value."""
        return VALUE_CONSTANT * (2 if self.published else 1) * self.lr * square

    def hvp(self, V: Tensor) -> Tensor:
        """Hessian products of the value, exact for every method, by differentiating the block values thrice.

        Args:
            V: vectors `[K, P]`.

        Returns:
            `[K, P]`.

        Raises:
            ValueError: if V has another shape, or the full gradient is penalised (its Hessian couples all blocks).
        """
        if self.full_strength:
            raise ValueError(
                "Hessian products are not defined here for a penalty on the full gradient: its Hessian couples all"
                " blocks; set full_strength to 0, or ask the risk"
            )

        def penalised(theta: Tensor, batch: Batch, k: int) -> Tensor:
            loss = self.risk.block_loss.value(theta, batch, k)
            (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
            return loss + VALUE_CONSTANT * self.lr * self.strength * gradient.square().sum()

        return self.risk.mean_product(V, penalised)

    def hvp_passes(self, vectors: int) -> float:
        """Three passes for the value's gradient, by double backward, and six for each product."""
        return (3.0 + 6.0 * vectors) * self.risk.hvp_passes(0)

    def accept(self, evaluation: Evaluation) -> None:
        """Writes the sweep's batch-norm statistics into the module's buffers."""
        self.risk.accept(evaluation)

    def _correction(
        self, theta: Tensor, batch: Batch, found: BlockGradients, full: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The blocks' gradients with the penalty's, its values, float64 `[K]`, and the probes' statistics."""
        square = self.strength * found.square
        if full is None:  # the probes go along g itself, which needs no vector v
            v, factor, length = found.gradient, self.strength, found.square.sqrt()
        else:
            v, factor = torch.add(self.full_strength * full, found.gradient, alpha=self.strength), 1.0
            length = square_norms(v).sqrt()
            square = square + self.full_strength * square_norms(full)
        value = self._value(square)
        scale = 2 * VALUE_CONSTANT * self.lr * factor
        if self.method == "exact":
            return self._exact_product(theta, batch, v).mul_(scale).add_(found.gradient), value, []
        # finite, so that v = 0 gives no step and no product
        h = (self.eps / length)[:, None].clamp(max=torch.finfo(theta.dtype).max)
        corrected, statistics = self._probed(theta, batch, found.gradient, v, h, scale)
        return corrected, value, statistics

    def _probed(
        self, theta: Tensor, batch: Batch, g: Tensor, v: Tensor, h: Tensor, scale: float
    ) -> tuple[Tensor, list[Tensor]]:
        """`g + scale H v` by finite differences of length h `[K, 1]`, and the statistics that the probes leave."""
        differentiate = self.risk.block_loss.differentiate
        step = h.to(theta.dtype)
        ahead = differentiate(torch.addcmul(theta, step, v), batch, self.published)
        if self.method == "forward":
            # g + (scale / h) (ahead - g)
            return torch.lerp(g, ahead.gradient, (scale / h).to(g.dtype)), [ahead.statistics] if self.published else []
        behind = differentiate(torch.addcmul(theta, step, v, value=-1), batch, self.published)
        statistics = [ahead.statistics, behind.statistics] if self.published else []
        difference = ahead.gradient.sub_(behind.gradient)
        return torch.addcmul(g, difference, (scale / (2 * h)).to(g.dtype)), statistics

    def _exact_product(self, theta: Tensor, batch: Batch, v: Tensor) -> Tensor:
        products = []
        for k in range(len(batch)):
            point = theta.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.risk.block_loss.value(point, batch, k), point, create_graph=True)
            products.append(hessian_product(gradient, point, v[k]))
        return torch.stack(products)
