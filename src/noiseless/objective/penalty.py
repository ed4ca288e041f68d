"""The gradient penalty: SGD's implicit regularisation, made explicit. Step 4 of a training step.

The one constant of this file: a penalty of strength s at learning rate lr adds `(lr / 8) s ||g||**2` to the value and
therefore `(lr / 4) s H g` to the gradient. (arXiv 2109.14119; its motivation is in Smith et al., ICLR 2021, and Barrett
and Dherin, ICLR 2021.)
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from noiseless.documented import documented
from noiseless.examples.blocks import Batch
from noiseless.objective import usercode
from noiseless.objective.base import Evaluation, Measurement, Objective, square_norms
from noiseless.objective.contribution import BlockGradients, ByBlock, Contribution
from noiseless.objective.exactsum import exact_total
from noiseless.objective.products import products
from noiseless.objective.risk import Blockwise, EmpiricalRisk

Method = Literal["forward", "central", "exact"]

PROBES: dict[Method, int] = {"forward": 1, "central": 2, "exact": 0}
"""probes of a block: additional forwards, whose batch-norm statistics the published code keeps"""
VALUE_CONSTANT = 1 / 8
"""factor of `lr s ||g||**2` in the value; twice that is the factor of `lr s H g` in the gradient"""
PASSES: dict[Method, float] = {"forward": 2.0, "central": 3.0, "exact": 3.0}
"""cost in gradient evaluations; a Hessian product by double backward costs about two"""


@documented
@dataclass(eq=False, repr=False)
class GradientPenalty(Blockwise):
    """A risk plus a penalty on gradient norms.

    With g_b and H_b the gradient and Hessian of block b's mean loss, g the full gradient, and means over blocks
    weighted by count, the value is

        L + (lr / 8) * (strength * mean_b ||g_b||**2 + full_strength * ||g||**2)

    and its gradient, with `v_b = strength * g_b + full_strength * g`,

        g + (lr / 4) * mean_b H_b v_b.

    `H_b v` is `(grad L_b(theta + h v) - g_b) / h` with `h = eps / ||v||` (`"forward"`, one more gradient a block),
    `(grad L_b(theta + h v) - grad L_b(theta - h v)) / (2 h)` (`"central"`, two more), or computed by double backward
    (`"exact"`). Only the last is the gradient of the value up to rounding. A `full_strength` above 0 costs one sweep
    more.

    Raises:
        ValueError: for a negative or non-finite number, an eps that is not positive, an unknown method.
    """

    risk: EmpiricalRisk
    """the risk to which the penalty is added"""
    strength: float
    """s, strength of the penalty on the blocks' gradients"""
    _: KW_ONLY
    lr: float | None = None
    """learning rate of the step: the penalty's scale; None: that of the optimizer, at each `take_step`"""
    full_strength: float = 0.0
    """strength of the penalty on the full gradient"""
    method: Method = "forward"
    """how Hessian products are computed"""
    eps: float = 1e-2
    """length `h ||v||` of the finite-difference probe, an L2 norm in the parameter space"""
    published: bool = False
    """whether to do as the paper's published code: the value is reported with twice its constant, lr / 4, and the
    probes' statistics enter batch norm's running averages, after those of the block"""

    def __post_init__(self) -> None:
        for name in ("strength", "lr", "full_strength"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"the penalty's {name} must be a finite number of at least 0, not {value}")
        if not 0 < self.eps < float("inf"):
            raise ValueError(f"the penalty's eps must be a positive number, not {self.eps}")
        if self.method not in PASSES:
            raise ValueError(f"the penalty's method must be one of {', '.join(PASSES)}, not {self.method!r}")
        self.space = self.risk.space
        self.visits = 1 + PROBES[self.method] if self.published else 1

    @property
    def wrapped(self) -> EmpiricalRisk:
        """The risk to which the penalty is added."""
        return self.risk

    def over(self, risk: Objective) -> Objective:
        """A copy of this penalty on another risk."""
        assert isinstance(risk, EmpiricalRisk)
        return replace(self, risk=risk)

    @property
    def rate(self) -> float:
        """The learning rate: `lr`, or that of the step for which `in_step` has made this objective.

        Raises:
            ValueError: if there is none.
        """
        lr = self.risk.selection.lr if self.lr is None else self.lr
        if lr is None:
            raise ValueError(
                "the penalty has no learning rate outside a step, where take_step gives it the optimizer's: give it one"
                " to evaluate it by itself, GradientPenalty(..., lr=0.1)"
            )
        return lr

    @property
    def needs_rate(self) -> bool:
        """Whether the learning rate is that of a step, and no step has given one."""
        return self.lr is None and self.risk.selection.lr is None

    @property
    def passes(self) -> float:
        """Passes of the method, plus one if the full gradient is penalised, times the risk's passes."""
        return (PASSES[self.method] + (self.full_strength > 0)) * self.risk.passes

    @property
    def sweeps(self) -> int:
        """One, or two if the full gradient is penalised; a block's probes belong to the same sweep."""
        return 1 + (self.full_strength > 0)

    @property
    def exact(self) -> bool:
        """True with the method "exact" over an exact risk, unless the value has the published constant."""
        return self.method == "exact" and self.risk.exact and not self.published

    def by_block(self) -> ByBlock:
        """The blocks' gradients plus the penalty's; a penalty on the full gradient first takes a sweep for it."""
        rate = self.rate
        full = self.risk.evaluate().gradient if self.full_strength else None

        def contribution(theta: Tensor, batch: Batch) -> Contribution:
            block = self.risk.block_loss.differentiate(theta, batch, record=True)
            direction, penalty, probed = self._corrected(theta, batch, block, full, rate)
            return Contribution(direction, penalty, torch.cat([block.statistics, *probed], 1), block)

        return contribution

    def measure(self) -> Measurement:
        """Loss and penalty from one sweep of the risk with gradients but without probes; the bits of `evaluate`."""
        rate = self.rate
        plain: Evaluation = self.risk.evaluate()
        square = self.strength * plain.block_square_norms
        if self.full_strength:
            square = square + self.full_strength * square_norms(plain.gradient).cpu()
        penalty = exact_total(self._value(square, rate) * plain.block_weights) / plain.weight
        return Measurement(plain.loss, penalty, plain.hits, plain.count, plain.passes, plain.metrics)

    def _value(self, square: Tensor, rate: float) -> Tensor:
        """The term added to the value, for `square = strength ||g_b||**2 + full_strength ||g||**2`."""
        return VALUE_CONSTANT * (2 if self.published else 1) * rate * square

    def penalised(self, loss: Tensor, gradient: Tensor) -> Tensor:
        """A block's value, without a penalty on the full gradient: `L_b + (lr / 8) strength ||g_b||**2`."""
        return loss + VALUE_CONSTANT * self.rate * self.strength * gradient.square().sum()

    def block_difference(self, number: int) -> Tensor | None:
        """The finite difference that stands for `H_b g_b` of a block, with its rounding: `h = eps / ||g_b||`.

        Args:
            number: of the block.

        Returns:
            `[P]`; None where g_b is 0, or where the method is "exact".
        """
        theta = self.space.theta.detach()
        g = self.risk.block_gradient(number, theta)
        length = float(square_norms(g).sqrt())
        if self.method == "exact" or not length:
            return None
        h = self.eps / length
        ahead = self.risk.block_gradient(number, theta + h * g)
        if self.method == "forward":
            return (ahead - g) / h
        return (ahead - self.risk.block_gradient(number, theta - h * g)) / (2 * h)

    def hvp(self, V: Tensor) -> Tensor:
        """Hessian products of the value, exact for every method, by differentiating the block losses three times.

        Args:
            V: vectors `[K, P]`.

        Returns:
            `[K, P]`.

        Raises:
            ValueError: if V has another shape, there is no learning rate, or the full gradient is penalised (that
                Hessian couples all blocks).
        """
        if self.full_strength:
            raise ValueError(
                "Hessian products are not available for a penalty on the full gradient, whose Hessian couples all"
                " blocks: set full_strength to 0, or use the products of the risk"
            )

        def of_block(batch: Batch, V: Tensor) -> tuple[Tensor, Tensor]:
            return products(self.risk.block_loss, lambda: self.block_value(batch), V, usercode.PENALISED_PRODUCTS)

        return self.risk.mean_product(V, of_block)

    def block_value(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The penalised value of a batch of one block, differentiable, and its weight; see `penalised`."""
        loss, weight = self.risk.block_loss.value(batch, 0)
        return self.penalised(loss, self.space.gradient(loss, create_graph=True)), weight

    def hvp_passes(self, vectors: int) -> float:
        """Three passes for the value's gradient, by double backward, and six for each product."""
        return (3.0 + 6.0 * vectors) * self.risk.passes

    def accept(self, evaluation: Evaluation) -> None:
        """Writes the sweep's batch-norm statistics into the module's buffers."""
        self.risk.accept(evaluation)

    def _corrected(
        self, theta: Tensor, batch: Batch, block: BlockGradients, full: Tensor | None, rate: float
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The blocks' gradients plus the penalty's; the penalty's values, float64 `[K]`; the probes' statistics."""
        square = self.strength * block.square
        if full is None:  # the probes go along g itself, which needs no vector v
            v, factor, length = block.gradient, self.strength, block.square.sqrt()
        else:
            v, factor = torch.add(self.full_strength * full, block.gradient, alpha=self.strength), 1.0
            length = square_norms(v).sqrt()
            square = square + self.full_strength * square_norms(full)
        value = self._value(square, rate)
        scale = 2 * VALUE_CONSTANT * rate * factor
        if self.method == "exact":
            return self._exact_product(theta, batch, v).mul_(scale).add_(block.gradient), value, []
        # finite, so that v = 0 gives no step and no product
        h = (self.eps / length)[:, None].clamp(max=torch.finfo(theta.dtype).max)
        corrected, statistics = self._probed(theta, batch, block.gradient, v, h, scale)
        return corrected, value, statistics

    def _probed(
        self, theta: Tensor, batch: Batch, g: Tensor, v: Tensor, h: Tensor, scale: float
    ) -> tuple[Tensor, list[Tensor]]:
        """`g + scale H v` by finite differences with steps h `[K, 1]`, and the statistics of the probes."""
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
        blocks = []
        for k in range(len(batch)):
            with self.space.at(theta):
                value = partial(self.risk.block_loss.value, batch, k)
                blocks.append(products(self.risk.block_loss, value, v[k : k + 1], usercode.EXACT_PENALTY)[0])
        return torch.cat(blocks)
