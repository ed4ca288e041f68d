"""The edge of stability: how sharp a quadratic may be before an optimizer's steps on it grow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from noiseless.analysis.operator import Operator, Preconditioned
from noiseless.objective.space import ParameterSpace

ADAM = ("Adam", "AdamW")
DIAGONAL = (*ADAM, "RMSprop", "Adagrad")
"""optimizers whose preconditioner is known"""


def edge(optimizer: torch.optim.Optimizer) -> float | None:
    """The largest Hessian eigenvalue at which an optimizer's steps do not grow on a quadratic.

    With learning rate lr, momentum m, dampening d and weight decay w, for `torch.optim.SGD`

        2 (1 + m) / ((1 - d) lr) - w            heavy ball; without momentum 2 / lr - w
        2 (1 + m) / ((1 + 2 m) lr) - w          Nesterov

    and for Adam (`w = 0`) and AdamW, of the preconditioned Hessian (see `preconditioned`),

        (1 + b1) (2 - w lr) / ((1 - b1) lr).

    (Cohen et al., ICLR 2021, arXiv 2103.00065; 2022, arXiv 2207.14484.) What scales or clips the gradient beside the
    optimizer is not in it: with a gradient clipped to a share c, the edge is at `1 / c` of that.

    Args:
        optimizer: with the learning rate of the step.

    Returns:
        The edge; None where it is not known, or groups of parameters differ in it.
    """
    found = {_edge_of(type(optimizer).__name__, group) for group in optimizer.param_groups}
    return found.pop() if len(found) == 1 else None


def _edge_of(name: str, group: dict[str, Any]) -> float | None:
    lr = float(group["lr"])
    if lr <= 0:
        return None
    if name == "SGD":
        m, d = float(group["momentum"]), float(group["dampening"]) if group["momentum"] else 0.0
        largest = 2 * (1 + m) / ((1 + 2 * m) * lr) if group["nesterov"] else 2 * (1 + m) / ((1 - d) * lr)
        return largest - float(group["weight_decay"])
    if name in ADAM and (_decoupled(name, group) or not group["weight_decay"]):
        b1, w = float(group["betas"][0]), float(group["weight_decay"])
        return (1 + b1) * (2 - w * lr) / ((1 - b1) * lr)
    return None


def preconditioned(operator: Operator, optimizer: torch.optim.Optimizer, space: ParameterSpace) -> Preconditioned:
    """The Hessian as the optimizer in use sees it, with its diagonal D.

    D is `sqrt(v / (1 - b2**t)) + eps` for Adam and AdamW, with v the running mean of squared gradients (or its largest,
    with amsgrad), `sqrt(v) + eps` for RMSprop and Adagrad. A weight decay that is added to the gradient is added to H.

    Args:
        operator: H.
        optimizer: with the state that it has after some steps.
        space: of the operator; its parameters are the optimizer's.

    Returns:
        `D^(-1/2) (H + w I) D^(-1/2)`.

    Raises:
        ValueError: for an optimizer without a known diagonal, or before its first step.
    """
    name = type(optimizer).__name__
    if name not in DIAGONAL:
        raise ValueError(f"{name} has no diagonal preconditioner that is known here: {', '.join(DIAGONAL)} have one")
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    state = optimizer.state
    if any(not state.get(p) for p in space.parameters):
        raise ValueError(f"{name} has no state yet, so there is no preconditioner: ask after its first step")
    coupled = {0.0 if _decoupled(name, g) else float(g["weight_decay"]) for g in optimizer.param_groups}
    if len(coupled) > 1:
        raise ValueError(f"groups of parameters differ in their weight decay ({coupled}): this is not one operator")
    roots = [_diagonal(name, groups[p], state[p]).rsqrt().reshape(-1) for p in space.parameters]
    return Preconditioned(operator, torch.cat(roots).to(space.theta), coupled.pop())


def _decoupled(name: str, group: dict[str, Any]) -> bool:
    return name == "AdamW" or bool(group.get("decoupled_weight_decay"))


def _diagonal(name: str, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    eps = float(group["eps"])
    if name in ADAM:
        v: Tensor = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
        return (v / (1 - float(group["betas"][1]) ** float(state["step"]))).sqrt() + eps
    if name == "Adagrad":
        return torch.sqrt(state["sum"]) + eps
    v = state["square_avg"]
    if group["centered"]:
        v = v - state["grad_avg"].square()
    return v.clamp(min=0).sqrt() + eps
