"""One step: the optimizer moves the parameters with a closure that evaluates the objective."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from noiseless.documented import documented
from noiseless.objective import Evaluation, GradientPenalty, Objective, SharpnessAware
from noiseless.objective.bins import largest_of
from noiseless.objective.blockclip import BlockClip
from noiseless.objective.space import ParameterSpace
from noiseless.objective.workers import SweepStoppedError
from noiseless.optim.optimizers import line_search
from noiseless.optim.searched import Outcome, Searched
from noiseless.optim.transforms import State, Transform
from noiseless.portable.powers import portable_powers

TRANSFORM_FLAGS = {
    "aggregate": "--parts", "norm_bias": "--norm-bias", "agc": "--agc", "clip_norm": "--clip",
    "additive_noise": "--additive-noise", "multiplicative_noise": "--multiplicative-noise", "lars": "--layer-rate",
    "larc": "--layer-rate", "transform": "--transform",
}  # fmt: skip
"""name of a transform -> the flag with which a recipe has it"""
STEPS = "steps_taken"
"""key in an optimizer's first group under which `take_step` counts, so that the count is in its `state_dict`"""


@documented
@dataclass(frozen=True, repr=False)
class Step:
    """The record of one optimizer step."""

    evaluation: Evaluation
    """the evaluation at the parameters from which the step started"""
    transformed: State
    """the transforms' state after that evaluation"""
    passes: float
    """cost of all evaluations of the step, in passes; L-BFGS and line searches evaluate more than once"""
    finite: bool
    """whether value and gradient were finite; if not, the step moved nothing"""
    search: Outcome | None = None
    """result of the line search of a `Searched` optimizer; None for others"""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.evaluation!r}, passes={self.passes:.4g}, finite={self.finite})"

    @property
    def clipped(self) -> bool:
        """Whether a clip of the chain has shortened the gradient."""
        return _clipped(self.transformed)


def take_step(
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    transform: Transform | None = None,
    state: State | None = None,
    number: int | None = None,
) -> Step:
    """Moves the parameters by one step of the optimizer.

    The objective gets what it leaves open: the number of the step, which keys random numbers (a module's dropout, a
    transform's noise), and the learning rate of the optimizer, which scales a `GradientPenalty` without one.

    The evaluation at the starting point is accepted: its batch-norm statistics go into the module's buffers, those of
    trial points do not. Parameters that the value does not depend on (`Evaluation.unused`) get no `.grad`, so weight
    decay, momentum and transforms do not move them, as in a plain loop of torch.

    Args:
        optimizer: any `torch.optim.Optimizer` over the objective's parameters.
        objective: the objective to minimise.
        transform: changes each gradient before the optimizer sees it.
        state: the transform's state; None: a new one.
        number: the step's number, from 0. None: the number of steps that were taken without a number by this optimizer;
            it counts them in its first parameter group, so that its `state_dict` goes on with the right one.

    Returns:
        The step's record.

    Raises:
        ValueError: if the optimizer holds none of the objective's parameters, if it does a line search and the gradient
            is not the gradient of the value, or if a penalty is to have the optimizer's learning rate, and its groups
            differ in it or have none.
        SweepStoppedError: if a worker was told to stop; its `moved` is whether anything has changed by then.
    """
    refuse_line_search(optimizer, objective, transform)
    space = objective.space
    groups = _groups_of(optimizer, space)
    counted, number = number is None, optimizer.param_groups[0].get(STEPS, 0) if number is None else number
    objective = objective.in_step(number, _rate(groups, objective.needs_rate))
    if transform is not None and state is None:
        state = transform.init(space.theta)
    first = objective.evaluate()
    before: State = state or {}
    after = before
    finite = _finite(first.value) and _finite(largest_of(first.gradient))
    if not finite:
        return Step(first, after, first.passes, False)
    passes = 0.0
    ready: Evaluation | None = first

    def closure() -> Tensor:
        nonlocal ready, passes, after
        evaluation, ready = ready or objective.evaluate(), None
        passes += evaluation.passes
        gradient, changed, unused = evaluation.gradient, before, evaluation.unused
        if transform is not None:
            gradient, changed = transform.update(gradient, before, space.theta, number)
            unused = () if transform.remembers else unused
        if evaluation is first:
            after = changed
        space.set_gradient(gradient, unused)
        return torch.tensor(evaluation.value, dtype=torch.float64)

    try:
        with portable_powers(optimizer):
            optimizer.step(closure)  # type: ignore[arg-type]
    except SweepStoppedError as stopped:
        stopped.moved = True
        raise
    objective.accept(first)
    if counted:
        optimizer.param_groups[0][STEPS] = number + 1
    return Step(first, after, passes, True, optimizer.last if isinstance(optimizer, Searched) else None)


def refuse_line_search(optimizer: torch.optim.Optimizer, objective: Objective, transform: Transform | None) -> None:
    """Raises where an optimizer would search along a direction that is not the gradient of the value.

    Raises:
        ValueError: with the reason and the remedy.
    """
    search = line_search(optimizer)
    if search and not (objective.exact and transform is None):
        cause, remedy = _inexact(objective) or _changed(transform)
        raise ValueError(
            f"a line search ({search}) compares values along the gradient, but {cause}: {remedy}, or use no line search"
        )


def _inexact(objective: Objective) -> tuple[str, str] | None:
    """Why the gradient of an objective is not exact, and the remedy; None where it is."""
    inner: Objective | None = objective
    while inner is not None and not inner.exact:
        if isinstance(inner, SharpnessAware):
            return "the gradient of sharpness-aware minimisation belongs to another point", "leave out --sam"
        if isinstance(inner, BlockClip):
            return "the gradient of each block is clipped", "leave out --block-clip"
        if isinstance(inner, GradientPenalty) and inner.method != "exact":
            return f"the penalty's gradient is that of {inner.method} differences", "use --penalty-method exact"
        if isinstance(inner, GradientPenalty) and inner.published:
            return "the penalty's value has the published code's constant", "leave out --compat published"
        inner = inner.risk if isinstance(inner, GradientPenalty) else getattr(inner, "wrapped", None)
    return None if objective.exact else ("the objective's gradient is not exact", "use one that is")


def _changed(transform: Transform | None) -> tuple[str, str]:
    """That a transform changes the gradient, and the flag without which it does not."""
    name = transform.name if transform else ""
    flags = [flag for kind, flag in TRANSFORM_FLAGS.items() if re.search(rf"\b{kind}\(", name)]
    return f"{name} changes the gradient", f"leave out {' and '.join(flags) or 'this transform'}"


def _groups_of(optimizer: torch.optim.Optimizer, space: ParameterSpace) -> list[dict[str, Any]]:
    """The optimizer's groups with parameters of a space; raises for an optimizer of another module, which has none."""
    own = set(map(id, space.parameters))
    groups = [group for group in optimizer.param_groups if not own.isdisjoint(map(id, group["params"]))]
    if not groups:
        raise ValueError(
            "the optimizer holds none of the objective's parameters, so its step would move nothing: make it for the"
            " module of the objective (module.parameters()), after the module was moved, copied or unfrozen"
        )
    return groups


def _rate(groups: list[dict[str, Any]], needed: bool) -> float | None:
    """The learning rate of groups; where they differ or have none, it is None, or refused if a penalty needs it."""
    rates = sorted({float(group["lr"]) for group in groups if "lr" in group})
    if needed and len(rates) != 1:
        have = f"have several ({', '.join(f'{rate:g}' for rate in rates)})" if rates else "have none"
        raise ValueError(
            f"the penalty has no learning rate of its own, and the optimizer's groups {have}: give it one,"
            " GradientPenalty(..., lr=0.1)"
        )
    return rates[0] if len(rates) == 1 else None


def _finite(value: float) -> bool:
    return value - value == 0


def _clipped(state: object) -> bool:
    if isinstance(state, dict):
        return bool(state.get("clipped")) or any(_clipped(part) for part in state.values())
    return False
