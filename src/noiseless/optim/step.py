"""One step: the optimizer moves the parameters with a closure that evaluates the objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.objective import Evaluation, Objective
from noiseless.objective.space import ParameterSpace
from noiseless.objective.workers import SweepStoppedError
from noiseless.optim.optimizers import line_search
from noiseless.optim.searched import Outcome, Searched
from noiseless.optim.transforms import State, Transform


@dataclass(frozen=True)
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

    @property
    def clipped(self) -> bool:
        """Whether a clip of the chain has shortened the gradient."""
        return _clipped(self.transformed)


def take_step(
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    transform: Transform | None = None,
    state: State | None = None,
    number: int = 0,
) -> Step:
    """Moves the parameters by one step of the optimizer.

    The evaluation at the starting point is accepted: its batch-norm statistics go into the module's buffers, those of
    trial points do not. Parameters that the value does not depend on (`Evaluation.unused`) get no `.grad`, so weight
    decay, momentum and transforms do not move them, as in a plain loop of torch.

    Args:
        optimizer: any `torch.optim.Optimizer` over the objective's parameters.
        objective: the objective to minimise.
        transform: changes each gradient before the optimizer sees it.
        state: the transform's state; None: a new one.
        number: the step's number, which keys a transform's random numbers.

    Returns:
        The step's record.

    Raises:
        ValueError: if the optimizer holds none of the objective's parameters, or if it does a line search and the
            gradient is not the gradient of the value.
        SweepStoppedError: if a worker was told to stop; its `moved` is whether anything has changed by then.
    """
    refuse_line_search(optimizer, objective, transform)
    space = objective.space
    _refuse_stranger(optimizer, space)
    if transform is not None and state is None:
        state = transform.init(space.theta)
    first = objective.evaluate()
    before: State = state or {}
    after = before
    finite = _finite(first.value) and bool(first.gradient.isfinite().all())
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
        optimizer.step(closure)  # type: ignore[arg-type]
    except SweepStoppedError as stopped:
        stopped.moved = True
        raise
    objective.accept(first)
    return Step(first, after, passes, True, optimizer.last if isinstance(optimizer, Searched) else None)


def refuse_line_search(optimizer: torch.optim.Optimizer, objective: Objective, transform: Transform | None) -> None:
    """Raises where an optimizer would search along a direction that is not the gradient of the value.

    Raises:
        ValueError: with the reason and the remedy.
    """
    search = line_search(optimizer)
    if search and not (objective.exact and transform is None):
        reason = "transforms change the gradient" if objective.exact else "the objective's gradient is not exact"
        raise ValueError(
            f"a line search ({search}) compares values along the gradient, but here {reason}: use the exact penalty"
            " method (without the published constant), one part, no block clip, no sam, and no clip, agc,"
            " noise, norm bias or layer rate; or use no line search"
        )


def _refuse_stranger(optimizer: torch.optim.Optimizer, space: ParameterSpace) -> None:
    """Raises for an optimizer of another module, whose step would move nothing here."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held.isdisjoint(map(id, space.parameters)):
        raise ValueError(
            "the optimizer holds none of the objective's parameters, so its step would move nothing: make it for the"
            " module of the objective (module.parameters()), after the module was moved, copied or unfrozen"
        )


def _finite(value: float) -> bool:
    return value - value == 0


def _clipped(state: object) -> bool:
    if isinstance(state, dict):
        return bool(state.get("clipped")) or any(_clipped(part) for part in state.values())
    return False
