"""The learning rate of `fit`: a schedule of noiseless, or a scheduler of torch as a table over the steps.

A table is a pure function of the step, so that a run that goes on has nothing of the scheduler to restore.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from noiseless.optim.schedules import Schedule

Scheduler = Callable[[Any], Any]
"""an optimizer -> scheduler of torch; or a step -> learning rate"""
ROUNDING = 1e-9
"""relative difference of learning rates that is taken for rounding"""
MOMENTUM = 0.9
"""momentum of the optimizer that is asked in place of the user's; a scheduler that changes it is refused"""


def schedule_of(scheduler: Scheduler | LRScheduler, rates: Sequence[float], steps: int) -> Schedule:
    """The learning rate by step: the largest among the optimizer's groups.

    Args:
        scheduler: a function of an optimizer that returns a scheduler of torch; or a function of the step.
        rates: learning rates of the optimizer's groups, to which those of each step are in proportion.
        steps: number of steps.

    Returns:
        The schedule.

    Raises:
        ValueError: for anything else, for schedulers that need more than the step, and for those whose rates do not
            stay in proportion.
    """
    if isinstance(scheduler, LRScheduler):
        name = type(scheduler).__name__
        raise ValueError(
            f"the scheduler belongs to an optimizer already: give the function that makes it, scheduler=lambda"
            f" optimizer: {name}(optimizer, ...)"
        )
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates]
    optimizer = torch.optim.SGD(groups, lr=max(rates), momentum=MOMENTUM)
    problem: Exception | None = None
    try:
        made = scheduler(optimizer)
    except Exception as error:
        made, problem = None, error
    if isinstance(made, LRScheduler):
        return _table(made, optimizer, rates, steps)
    try:
        float(scheduler(0))
    except Exception as error:
        raise ValueError(
            f"the scheduler must be a function of the optimizer that returns a scheduler of torch, or a function of the"
            f" step that returns the learning rate: called with an optimizer it raised {problem!r}, with 0 {error!r}"
        ) from None
    return scheduler


def _table(scheduler: LRScheduler, optimizer: torch.optim.Optimizer, initial: Sequence[float], steps: int) -> Schedule:
    """The rates of a scheduler at each step."""
    name, groups = type(scheduler).__name__, optimizer.param_groups
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError(
            f"{name} follows a metric, and here the rate must be a function of the step alone, so that a run that goes"
            " on has the same rates: use another scheduler"
        )
    largest = initial.index(max(initial))
    rates: list[float] = []
    for step in range(steps):
        if step:
            optimizer.step()
            scheduler.step()
        now = [float(group["lr"]) for group in groups]
        if not all(
            math.isclose(
                rate, now[largest] * first / (initial[largest] or 1), rel_tol=ROUNDING, abs_tol=ROUNDING * first
            )
            for rate, first in zip(now, initial, strict=True)
        ):
            raise ValueError(
                f"{name} does not keep the learning rates of the optimizer's groups in proportion ({_listed(initial)}"
                f" at first, {_listed(now)} in step {step}), which is needed here: use a scheduler that multiplies"
                " them, such as LambdaLR"
            )
        rates.append(now[largest])
        if any(group["momentum"] != MOMENTUM for group in groups):
            raise ValueError(f"{name} changes the momentum, too, which is not possible here: give cycle_momentum=False")
    return lambda time: rates[min(int(time), len(rates) - 1)]


def _listed(rates: Sequence[float]) -> str:
    """Learning rates in a few words."""
    return ", ".join(f"{rate:g}" for rate in rates[:4]) + (", ..." if len(rates) > 4 else "")
