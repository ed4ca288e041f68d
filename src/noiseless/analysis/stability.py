"""The edge of stability: how sharp a quadratic may be before an optimizer's steps on it grow."""

from __future__ import annotations

import torch
from torch import Tensor

from noiseless.analysis.operator import Operator, Preconditioned
from noiseless.objective.space import ParameterSpace
from noiseless.optim import entry_of, optimizer_entry, optimizer_names


def stability_threshold(optimizer: torch.optim.Optimizer, parts: int = 1) -> float | None:
    """The edge of stability: the largest Hessian eigenvalue at which an optimizer's steps on a quadratic do not grow.

    With learning rate lr, momentum m, dampening d and weight decay w, for `torch.optim.SGD`

        2 (1 + m) / ((1 - d) lr) - w            heavy ball; without momentum 2 / lr - w
        2 (1 + m) / ((1 + 2 m) lr) - w          Nesterov

    and, of the preconditioned Hessian (see `preconditioned`),

        (1 + b1) (2 - w lr) / ((1 - b1) lr)     AdamW; Adam with w = 0, as its decay is in the preconditioned Hessian
        2 (1 + m) / lr                          RMSprop, likewise.

    (Cohen et al., ICLR 2021, arXiv 2103.00065; 2022, arXiv 2207.14484.) With K parts, each of the K updates of a step
    goes along the mean of the parts' newest gradients, all but one of which are of earlier points. The recursion then
    has K + 1 terms, and the edge is lower: 6.09 for SGD at lr 0.1 with 8 parts, in place of 20 (see
    `optim.recursion.Recursion`). It holds for parts with one Hessian. Scaling or clipping of the gradient outside the
    optimizer is not included: where the gradient is multiplied by c, the edge is `1 / c` times this one.

    Args:
        optimizer: with the learning rate of the step.
        parts: K.

    Returns:
        The edge; None if it is not known for this optimizer, a learning rate is not positive, or the edges of the
        parameter groups differ.
    """
    recursion = entry_of(optimizer).recursion
    if recursion is None or any(group["lr"] <= 0 for group in optimizer.param_groups):
        return None
    edges = {recursion(group).edge(parts) for group in optimizer.param_groups}
    return edges.pop() if len(edges) == 1 else None


def preconditioned(operator: Operator, optimizer: torch.optim.Optimizer, space: ParameterSpace) -> Preconditioned:
    """The Hessian, preconditioned by the diagonal D of an adaptive optimizer.

    D is `sqrt(v / (1 - b2**t)) + eps` for Adam and AdamW, with v the running mean of squared gradients (or its largest
    value, with amsgrad), and `sqrt(v) + eps` for RMSprop and Adagrad. A weight decay w that is added to the gradient,
    which may differ between parameter groups, is added to H. Rows and columns of parameters that never had a gradient
    are 0, as the optimizer does not move them.

    Args:
        operator: H.
        optimizer: after at least one step, as D comes from its state.
        space: of the operator; its parameters are the optimizer's.

    Returns:
        `D^(-1/2) (H + w I) D^(-1/2)`.

    Raises:
        ValueError: for an optimizer without a known diagonal, or before its first step.
    """
    entry, name = entry_of(optimizer), type(optimizer).__name__
    if entry.diagonal is None:
        known = ", ".join(other for other in optimizer_names() if optimizer_entry(other).diagonal)
        raise ValueError(f"{name} has no diagonal preconditioner that is known here; {known} have one")
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    state = optimizer.state
    if not any(state.get(p) for p in space.parameters):
        raise ValueError(f"{name} has no state yet, so it has no preconditioner: choose a state after its first step")
    decays = [float(groups[p]["weight_decay"]) if entry.couples_decay(groups[p]) else 0.0 for p in space.parameters]
    roots = [
        (entry.diagonal(groups[p], state[p]).rsqrt().expand_as(p) if state.get(p) else torch.zeros_like(p)).reshape(-1)
        for p in space.parameters
    ]
    shift: float | Tensor = decays[0]
    if len(set(decays)) > 1:
        shift = torch.cat([torch.full_like(part, w) for part, w in zip(roots, decays, strict=True)]).to(space.theta)
    return Preconditioned(operator, torch.cat(roots).to(space.theta), shift)
