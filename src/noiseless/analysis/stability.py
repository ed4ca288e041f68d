"""The edge of stability: how sharp a quadratic may be before an optimizer's steps on it grow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from noiseless.analysis.operator import Operator, Preconditioned
from noiseless.objective.space import ParameterSpace
from noiseless.optim import Linear, OptimizerEntry, entry_of, optimizer_entry, optimizer_names


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
    if not _started(optimizer, space):
        raise ValueError(f"{name} has no state yet, so it has no preconditioner: choose a state after its first step")
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    decays = [_coupled(entry, groups[p]) for p in space.parameters]
    shift: float | Tensor = decays[0]
    if len(set(decays)) > 1:
        parts = [torch.full_like(p, w).reshape(-1) for p, w in zip(space.parameters, decays, strict=True)]
        shift = torch.cat(parts).detach().to(space.theta)
    return Preconditioned(operator, inverse_root(entry, optimizer, space), shift)


@dataclass(frozen=True)
class StepStability:
    """Which matrix decides whether an optimizer's steps grow, and where."""

    operator: Operator
    """A, symmetric: steps on a quadratic grow along the eigenvectors whose eigenvalue is above the edge"""
    root: Tensor | None
    """S `[P]`: a vector x of A's space is the direction S x of the parameters; None: 1"""
    edge: float | None
    """the edge; None: it is not known"""
    reason: str | None = None
    """why it is not known, as a sentence without full stop; None where it is"""


def step_stability(
    operator: Operator,
    optimizer: torch.optim.Optimizer,
    space: ParameterSpace,
    linear: Linear | None = None,
    parts: int = 1,
) -> StepStability:
    """The matrix and the edge of an optimizer's steps, with the factors by which they differ between parameters.

    A step passes a change `dtheta` of the parameters on as `D^-1 F R ((H + W) dtheta)` before the momentum: D is the
    diagonal of an adaptive optimizer, F the factors of the transforms (of a clip, of layer rates, at this step), R the
    ratios of the groups' learning rates to that of the first, and W the weight decays that are added to the gradient.
    All but H are diagonal, so the eigenvalues are those of the symmetric

        A = S (H + W) S,    S = (D^-1 F R)^(1/2),

    and the edge is that of `stability_threshold` without weight decay. Decoupled decays w and rates lr that differ
    between groups go into R as `2 / (2 - lr w)`, as the edge lies where a step turns a vector around:
    `(lr / (1 + m)) A x = (2 - lr w) x`, say, for heavy ball. Where all of these are 1 and all parameters have one
    weight decay, A is H, and the edge that of `stability_threshold`.

    Clip and layer rates count with the factor of the step. That is exact where the oscillation leaves the norms as they
    are: where the gradient's part along the eigenvector is small beside the rest.

    Args:
        operator: H.
        optimizer: with the learning rate of the step, and the state after it.
        space: of the operator; its parameters are the optimizer's.
        linear: of the transforms of the gradient; None: there are none.
        parts: see `stability_threshold`.

    Returns:
        Matrix and edge; H itself where the edge is not known.
    """
    entry, groups, name = entry_of(optimizer), optimizer.param_groups, type(optimizer).__name__

    def unknown(reason: str) -> StepStability:
        return StepStability(operator, None, None, reason)

    if entry.recursion is None:
        return unknown(f"the edge of stability of {name} is not known")
    if any(group["lr"] <= 0 for group in groups):
        return unknown("the learning rate is 0")
    recursions = [entry.recursion(group) for group in groups]
    uniform = linear is None or (bool((linear.factor == 1).all()) and not linear.decay.any())
    if uniform and entry.diagonal is None and len(set(recursions)) == 1:
        return StepStability(operator, None, recursions[0].edge(parts))
    if entry.diagonal is not None and not _started(optimizer, space):
        return unknown(f"{name} has no state before its first step")
    first = replace(recursions[0], coupled=0.0)
    if any(replace(r, lr=first.lr, coupled=0.0, decoupled=first.decoupled) != first for r in recursions):
        return unknown("the parameter groups differ in momentum")
    ratios = [1.0] * len(groups)
    if any((r.lr, r.decoupled) != (first.lr, first.decoupled) for r in recursions):
        if parts > 1:
            return unknown("with several parts, the edge is not known for groups that differ in rate or weight decay")
        if any(r.lr * r.decoupled >= 2 for r in recursions):
            return unknown("the weight decay alone turns the parameters around: lr times weight decay is 2 or more")
        ratios = [r.lr / first.lr * 2 / (2 - r.lr * r.decoupled) for r in recursions]
        first = replace(first, decoupled=0.0)
    of_group = {id(group): ratio for group, ratio in zip(groups, ratios, strict=True)}
    square = _by_parameter(optimizer, space, lambda group: of_group[id(group)])
    decay = _by_parameter(optimizer, space, lambda group: _coupled(entry, group))
    if linear is not None:
        decay = linear.decay + torch.where(decay == 0, 0.0, decay / linear.factor)
        square = square * linear.factor
    if entry.diagonal is not None:
        square = square * inverse_root(entry, optimizer, space).square()
    root = square.clamp(min=0).sqrt()
    return StepStability(Preconditioned(operator, root, decay), root, first.edge(parts))


def _started(optimizer: torch.optim.Optimizer, space: ParameterSpace) -> bool:
    return any(optimizer.state.get(p) for p in space.parameters)


def _coupled(entry: OptimizerEntry, group: Mapping[str, Any]) -> float:
    """The weight decay of a group that is added to the gradient."""
    return float(group["weight_decay"]) if entry.couples_decay(group) else 0.0


def _by_parameter(
    optimizer: torch.optim.Optimizer, space: ParameterSpace, value: Callable[[dict[str, Any]], float]
) -> Tensor:
    """A number of each parameter group, as a vector `[P]`; 0 for parameters that no group has."""
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    numbers = [value(groups[p]) if p in groups else 0.0 for p in space.parameters]
    return torch.cat([torch.full_like(p, x).reshape(-1) for p, x in zip(space.parameters, numbers, strict=True)])


def inverse_root(entry: OptimizerEntry, optimizer: torch.optim.Optimizer, space: ParameterSpace) -> Tensor:
    """`D^(-1/2)`, `[P]`; 0 for parameters that never had a gradient."""
    assert entry.diagonal is not None
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    state = optimizer.state
    parts = [
        (entry.diagonal(groups[p], state[p]).rsqrt().expand_as(p) if state.get(p) else torch.zeros_like(p)).reshape(-1)
        for p in space.parameters
    ]
    return torch.cat(parts).detach().to(space.theta)
