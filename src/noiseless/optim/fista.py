"""FISTA: accelerated gradient descent with the momentum that is optimal for convex functions. Step 7 of a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class FISTA(torch.optim.Optimizer):
    """Accelerated gradient descent (Beck and Teboulle, SIAM J. Imaging Sci. 2009, doi 10.1137/080716542), smooth part.

    With y the parameters, at which the gradient is computed, and `t_1 = 1`:

        x_k = y_k - lr grad f(y_k),   t_{k+1} = (1 + sqrt(1 + 4 t_k**2)) / 2,
        y_{k+1} = x_k + ((t_k - 1) / t_{k+1}) (x_k - x_{k-1}).

    On a convex f whose gradient has the Lipschitz constant L, `lr = 1 / L` gives `f(x_k) - min f <= 2 L
    ||x_0 - x*||**2 / (k + 1)**2`. With `restart`, t is set back to 1 and the momentum is left out in each step with
    `grad f(y_k) . (x_k - x_{k-1}) > 0` (the gradient scheme of O'Donoghue and Candes, arXiv 1204.3982), which makes
    convergence linear where f is strongly convex.

    Args:
        params: parameters to optimise.
        lr: step size.
        restart: whether to restart as above.
        weight_decay: wd of the term `(wd / 2) ||theta||**2`, which is part of f (coupled decay).

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(self, params: Any, lr: float = 1e-3, restart: bool = False, weight_decay: float = 0.0):
        if not 0 <= lr < float("inf"):
            raise ValueError(f"lr must be a finite number of at least 0, not {lr}")
        if not isinstance(restart, bool):
            raise ValueError(f"restart must be True or False, not {restart!r}")
        if not 0 <= weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be a finite number of at least 0, not {weight_decay}")
        super().__init__(params, {"lr": lr, "restart": restart, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step.

        Args:
            closure: sets the gradients and returns the value; called once.

        Returns:
            The closure's value; None without a closure.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        moves = []
        against = 0.0
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    gradient = p.grad + group["weight_decay"] * p
                    state = self.state[p]
                    x = p - group["lr"] * gradient
                    change = x - state.get("x", p)
                    moves.append((p, state, x, change))
                    if group["restart"]:
                        against += float((gradient.double() * change.double()).sum())
        for p, state, x, change in moves:
            t = state.get("t", 1.0)
            ahead = (1 + math.sqrt(1 + 4 * t * t)) / 2
            if against > 0:
                ahead, t = 1.0, 1.0
            p.copy_(x + (t - 1) / ahead * change)
            state.update(x=x, t=ahead)
        return loss
