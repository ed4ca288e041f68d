"""The learning rate of `fit`: a schedule of noiseless, or a scheduler of torch as a table over the steps.

A table is a pure function of the step, so that a run that goes on has nothing of the scheduler to restore.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from noiseless.optim.schedules import Schedule

Scheduler = Callable[[Any], Any]
"""an optimizer -> scheduler of torch; or a step -> learning rate"""
MOMENTUM = 0.9
"""momentum of the optimizer that is asked in place of the user's; a scheduler that changes it is refused"""


def schedule_of(scheduler: Scheduler | LRScheduler, lr: float, steps: int) -> Schedule:
    """The learning rate by step.

    Args:
        scheduler: a function of an optimizer that returns a scheduler of torch; or a function of the step.
        lr: learning rate of the optimizer.
        steps: number of steps.

    Returns:
        The schedule.

    Raises:
        ValueError: for anything else, and for schedulers that need more than the step.
    """
    if isinstance(scheduler, LRScheduler):
        name = type(scheduler).__name__
        raise ValueError(
            f"the scheduler belongs to an optimizer already: give the function that makes it, scheduler=lambda"
            f" optimizer: {name}(optimizer, ...)"
        )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=MOMENTUM)
    problem: Exception | None = None
    try:
        made = scheduler(optimizer)
    except Exception as error:
        made, problem = None, error
    if isinstance(made, LRScheduler):
        return _table(made, optimizer, steps)
    try:
        float(scheduler(0))
    except Exception as error:
        raise ValueError(
            f"the scheduler must be a function of the optimizer that returns a scheduler of torch, or a function of the"
            f" step that returns the learning rate: called with an optimizer it raised {problem!r}, with 0 {error!r}"
        ) from None
    return scheduler


def _table(scheduler: LRScheduler, optimizer: torch.optim.Optimizer, steps: int) -> Schedule:
    """The rates of a scheduler at each step."""
    name, (group,) = type(scheduler).__name__, optimizer.param_groups
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError(
            f"{name} follows a metric, and here the rate must be a function of the step alone, so that a run that goes"
            " on has the same rates: use another scheduler"
        )
    rates = [float(group["lr"])]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        rates.append(float(group["lr"]))
        if group["momentum"] != MOMENTUM:
            raise ValueError(f"{name} changes the momentum, too, which is not possible here: give cycle_momentum=False")
    return lambda time: rates[min(int(time), len(rates) - 1)]
