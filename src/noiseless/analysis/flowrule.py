"""Optimizers as flows: the preconditioner P of a step, and the equation of its second moment nu."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noiseless.objective.space import ParameterSpace
from noiseless.optim import ScalarRMSprop
from noiseless.optim.step import STEPS

TINY = 1e-30
"""smallest sqrt(nu) + eps"""


@dataclass(frozen=True)
class FlowRule:
    """An optimizer without momentum, `theta <- theta - P^-1 g` with `P = (sqrt(nu) + eps) / lr`, in continuous time.

    Time is in steps. g is the gradient with the coupled weight decay. For gradient descent `P = 1 / lr`. RMSProp's
    `nu_t = b nu_{t-1} + (1 - b) g_t**2` is `nu_t - nu_{t-1} = c (g_t**2 - nu_t)` with `c = (1 - b) / b`, as the step
    divides by the nu that holds its gradient already; so in continuous time (arXiv 2410.24206)

        d nu / dt = c (g**2 - nu),   nu at the start: b nu_{t-1} + (1 - b) g**2.

    Scalar RMSProp has `||g||**2` in the place of `g**2`.
    """

    kind: Literal["gradient descent", "scalar RMSProp", "RMSProp"]
    """gradient descent: no nu; scalar RMSProp: one nu; RMSProp: one for each parameter"""
    beta: float = 0.0
    """b, torch's alpha"""
    eps: float = 0.0
    decay: Tensor | None = None
    """coupled weight decay of each parameter, float64 `[P]`; None: there is none"""

    @property
    def c(self) -> float:
        """Rate of the equation of nu, `(1 - b) / b`; 0 for gradient descent."""
        return (1 - self.beta) / self.beta if self.beta else 0.0

    def decayed(self, gradient: Tensor, theta: Tensor) -> Tensor:
        """The gradient g with the weight decay, float64 `[P]`."""
        return gradient.double() if self.decay is None else gradient.double() + self.decay * theta

    def square(self, gradient: Tensor) -> Tensor:
        """What nu is a running mean of: `g**2` `[P]`, `||g||**2` `[1]`, or nothing, `[0]`."""
        return self.reduced(gradient.square())

    def reduced(self, squares: Tensor) -> Tensor:
        """Numbers of each parameter `[P]` as nu has them: `[P]`, their sum `[1]`, or `[0]`."""
        if self.kind == "RMSProp":
            return squares
        return squares.sum().reshape(1) if self.kind == "scalar RMSProp" else squares.new_zeros(0)

    def start(self, before: Tensor, gradient: Tensor) -> Tensor:
        """Nu at the start of a flow: that of the optimizer's next step.

        Args:
            before: nu in the optimizer's state, as `reduced` has it.
            gradient: with the decay, `[P]`.

        Returns:
            nu, float64.
        """
        return self.beta * before + (1 - self.beta) * self.square(gradient)

    def preconditioner(self, nu: Tensor, lr: float) -> Tensor:
        """P, float64 `[1]` or `[P]`."""
        if self.kind == "gradient descent":
            return nu.new_full((1,), 1 / lr)
        return (nu.clamp(min=0).sqrt() + self.eps).clamp(min=TINY) / lr

    def slope(self, nu: Tensor, lr: float) -> Tensor:
        """`dP / dnu = 1 / (2 lr sqrt(nu))`, float64; `[0]` for gradient descent."""
        return 0.5 / (lr * nu.clamp(min=0).sqrt().clamp(min=max(self.eps, TINY)))


def flow_rule(optimizer: torch.optim.Optimizer, space: ParameterSpace) -> tuple[FlowRule, Tensor]:
    """The flow of an optimizer, and its nu before the next step.

    Args:
        optimizer: SGD, RMSprop or ScalarRMSprop, without momentum.
        space: of its parameters.

    Returns:
        The rule, and nu float64 (0 before the first step).

    Raises:
        ValueError: for another optimizer, or settings that a flow does not have, with the remedy.
    """
    groups, kind = optimizer.param_groups, type(optimizer)
    names = {torch.optim.SGD: "gradient descent", torch.optim.RMSprop: "RMSProp", ScalarRMSprop: "scalar RMSProp"}
    if kind not in names:
        raise ValueError(
            f"the flows of {kind.__name__} are not known here; they are of SGD without momentum, RMSprop and"
            " ScalarRMSprop: train a run with --optimizer SGD --momentum 0"
        )
    if any(group.get("momentum", 0) for group in groups):
        raise ValueError(
            f"the flows are of optimizers without momentum, and this run's {kind.__name__} has a momentum of"
            f" {groups[0]['momentum']:g}: train a run with --momentum 0"
        )
    for name in ("centered", "maximize"):
        if any(group.get(name) for group in groups):
            raise ValueError(f"the flows have no {name}=True of {kind.__name__}: train a run without it")
    ignored = ("params", "weight_decay", "lr", STEPS)
    settings = [{name: value for name, value in group.items() if name not in ignored} for group in groups]
    if any(other != settings[0] for other in settings) or len({float(group["lr"]) for group in groups}) > 1:
        raise ValueError("the parameter groups of the optimizer differ in their settings: give all of them the same")
    beta, eps = float(settings[0].get("alpha", 0)), float(settings[0].get("eps", 0))
    if kind is not torch.optim.SGD and not beta > 0:
        raise ValueError(f"alpha must be above 0 for a flow, which averages over steps, not {beta:g}")
    rule = FlowRule(names[kind], beta, eps, _decay(optimizer, space))  # type: ignore[arg-type]
    states = [optimizer.state.get(p, {}).get("square_avg") for p in space.parameters]
    if rule.kind == "scalar RMSProp":
        known = [float(v) for v in states if v is not None]
        return rule, space.theta.new_full((1,), max(known, default=0.0), dtype=torch.float64)
    if rule.kind == "gradient descent":
        return rule, space.theta.new_zeros(0, dtype=torch.float64)
    parts = [torch.zeros_like(p) if v is None else v for v, p in zip(states, space.parameters, strict=True)]
    return rule, torch.cat([part.detach().reshape(-1) for part in parts]).double().to(space.device)


def _decay(optimizer: torch.optim.Optimizer, space: ParameterSpace) -> Tensor | None:
    """The weight decay of each parameter, `[P]`; None if all are 0."""
    decays = {id(p): float(group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    if not any(decays.values()):
        return None
    like = space.theta.detach().double()
    return torch.cat([like.new_full((p.numel(),), decays[id(p)]) for p in space.parameters])
