"""Optimizers by name: any of `torch.optim`, closures included."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from noiseless.errors import UnknownNameError


def optimizer_names() -> list[str]:
    """The names of `torch.optim`'s optimizers, as torch spells them."""
    return sorted(
        name
        for name, member in vars(torch.optim).items()
        if inspect.isclass(member) and issubclass(member, torch.optim.Optimizer) and member is not torch.optim.Optimizer
    )


def make_optimizer(name: str, parameters: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """An optimizer of `torch.optim` by its name, in any case.

    Args:
        name: "SGD", "adamw", "LBFGS", ...
        parameters: what it moves.
        settings: its arguments.

    Returns:
        The optimizer.

    Raises:
        UnknownNameError: with the nearest names.
        ValueError: for a setting that it does not take.
    """
    known = {each.lower(): each for each in optimizer_names()}
    if name.lower() not in known:
        raise UnknownNameError("optimizer", name, known.values())
    kind = getattr(torch.optim, known[name.lower()])
    takes = inspect.signature(kind).parameters
    stray = [key for key in settings if key not in takes]
    if stray:
        raise ValueError(
            f"torch.optim.{kind.__name__} takes no {', '.join(stray)}; it takes"
            f" {', '.join(key for key in takes if key != 'params')}"
        )
    made = kind(parameters, **settings)
    assert isinstance(made, torch.optim.Optimizer)
    return made


def line_search(optimizer: torch.optim.Optimizer) -> str | None:
    """The name of the line search that an optimizer does, if any: it needs an exact objective."""
    return optimizer.param_groups[0].get("line_search_fn")
