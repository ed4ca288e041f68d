"""Scalar RMSProp: one adaptive step size for all parameters. Step 7 of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from noiseless.objective.base import square_norms


class ScalarRMSprop(torch.optim.Optimizer):
    """RMSProp with one running mean of the squared norm of the gradient (arXiv 2410.24206), not one for each element.

        v_t = alpha v_{t-1} + (1 - alpha) ||g_t||**2,   theta_{t+1} = theta_t - lr g_t / (sqrt(v_t) + eps)

    with `v_{-1} = 0`. The norm is over all parameters that have a gradient. It is the simplest optimizer whose step
    size adapts to the gradient.

    Args:
        params: parameters to optimise.
        lr: step size.
        alpha: decay of the running mean.
        eps: added to the root.
        weight_decay: wd of the term `(wd / 2) ||theta||**2`, whose gradient is added to g (coupled decay).

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(
        self, params: Any, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0
    ):
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number of at least 0, not {value}")
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha must be at least 0 and below 1, not {alpha}")
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step.

        Args:
            closure: sets the gradients and returns the value; called once.

        Returns:
            The closure's value; None without a closure.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        moves = [(p, group, self._gradient(p, group)) for group in self.param_groups for p in group["params"]]
        moved = [(p, group, gradient) for p, group, gradient in moves if gradient is not None]
        total = sum(float(square_norms(gradient.reshape(-1))) for _, _, gradient in moved)
        for p, group, gradient in moved:
            before = self.state[p].get("square_avg", p.new_zeros(()))
            v = self.state[p]["square_avg"] = group["alpha"] * before + (1 - group["alpha"]) * total
            p -= group["lr"] / (v.sqrt() + group["eps"]) * gradient
        return loss

    @staticmethod
    def _gradient(p: Tensor, group: dict[str, Any]) -> Tensor | None:
        if p.grad is None or not group["weight_decay"]:
            return p.grad
        return p.grad + group["weight_decay"] * p
