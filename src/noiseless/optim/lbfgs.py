"""L-BFGS for functions with negative curvature: Powell's damping, one evaluation a step. Step 7 of a training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class DampedLBFGS(torch.optim.Optimizer):
    """Limited-memory BFGS with damped updates: its direction is always a descent direction.

    The direction is `d = -H g`, with H built from the last pairs `s = theta' - theta`, `y = g' - g` by the two-loop
    recursion (Nocedal and Wright 2006, algorithm 7.4), from `H0 = (s . y / y . y) I` of the newest pair. Pairs are
    damped (their procedure 18.2; Powell 1978): where `s . y < damping * s . B s`, y is replaced by

        phi y + (1 - phi) B s,   phi = (1 - damping) s . B s / (s . B s - s . y),

    so that `s . y = damping * s . B s > 0` and H stays positive definite, however f is curved. B is the inverse of
    the H that gave the last direction; since the step went along it, `s = a d`, `B s = -a g` costs nothing. The first
    direction is -g, shortened to length 1 if it is longer. A step of length 0 does not change the pairs.

    Unlike `torch.optim.LBFGS`, it evaluates once a step and has no line search; `Searched` adds one. Where the
    objective changes from step to step, y contains that change, too.

    Args:
        params: parameters to optimise.
        lr: `theta <- theta + lr d`; the value of the first group is used for all.
        history_size: largest number of pairs.
        damping: smallest curvature along s in units of that of B, between 0 and 1.
        weight_decay: wd of the term `(wd / 2) ||theta||**2`, which is part of the function (coupled decay).

    Raises:
        ValueError: for a number out of its range.
    """

    def __init__(
        self, params: Any, lr: float = 1.0, history_size: int = 10, damping: float = 0.2, weight_decay: float = 0.0
    ):
        if not 0 <= lr < float("inf"):
            raise ValueError(f"lr must be a finite number of at least 0, not {lr}")
        if not isinstance(history_size, int) or history_size < 1:
            raise ValueError(f"history_size must be a whole number of at least 1, not {history_size}")
        if not 0 < damping < 1:
            raise ValueError(f"damping must be a number between 0 and 1, not {damping}")
        if not 0 <= weight_decay < float("inf"):
            raise ValueError(f"weight_decay must be a finite number of at least 0, not {weight_decay}")
        settings = {"lr": lr, "history_size": history_size, "damping": damping, "weight_decay": weight_decay}
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step.

        Args:
            closure: sets the gradients and returns the value; called once.

        Returns:
            The closure's value; None without a closure.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        members = [(p, group) for group in self.param_groups for p in group["params"]]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad + group["weight_decay"] * p for p, group in members]
        gradient = torch.cat([part.flatten() for part in parts])
        theta = torch.cat([p.detach().flatten() for p, _ in members])
        first, group = members[0]
        state = self.state[first]
        if not state:
            state.update(S=[], Y=[], scale=1 / max(1.0, _dot(gradient, gradient) ** 0.5))
        else:
            _remember(state, theta - state["theta"], gradient, group["damping"], group["history_size"])
        direction = _product(state, -gradient)
        state.update(theta=theta, gradient=gradient, slope=_dot(gradient, direction))
        offset = 0
        for p, _ in members:
            p.add_(direction[offset : offset + p.numel()].view_as(p), alpha=group["lr"])
            offset += p.numel()
        return loss


def _remember(state: dict[str, Any], s: Tensor, gradient: Tensor, damping: float, most: int) -> None:
    """Stores the pair of the last step, damped; keeps the last `most` pairs."""
    before, y = state["gradient"], gradient - state["gradient"]
    along = _dot(s, before)
    if not (along < 0 and state["slope"] < 0):
        return  # the last step had length 0
    size = along / state["slope"]
    curvature, modelled = _dot(s, y), -size * along  # s . y and s . B s
    if curvature < damping * modelled:
        phi = (1 - damping) * modelled / (modelled - curvature)
        y = phi * y - (1 - phi) * size * before
        curvature = _dot(s, y)
    length = _dot(y, y)
    rounding = torch.finfo(y.dtype).eps * (_dot(s, s) * length) ** 0.5
    if not rounding < curvature < float("inf"):
        return  # with rounding errors the curvature may not be positive
    state["S"], state["Y"] = [*state["S"], s][-most:], [*state["Y"], y][-most:]
    state["scale"] = curvature / length


def _product(state: dict[str, Any], v: Tensor) -> Tensor:
    """`H v` by the two-loop recursion."""
    pairs = [(s, y, 1 / _dot(s, y)) for s, y in zip(state["S"], state["Y"], strict=True)]
    shares = []
    for s, y, inverse in reversed(pairs):
        shares.append(inverse * _dot(s, v))
        v = v - shares[-1] * y
    v = state["scale"] * v
    for (s, y, inverse), share in zip(pairs, reversed(shares), strict=True):
        v = v + (share - inverse * _dot(y, v)) * s
    return v


def _dot(a: Tensor, b: Tensor) -> float:
    return float(a.double() @ b.double())
