"""Makes optimizers by name and checks their settings before a run begins."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from noiseless.optim.function import TRIAL_EVALUATIONS, EnoughError, refuse_hidden_state, takes_any
from noiseless.optim.registry import optimizer_entry
from noiseless.optim.searched import Searched
from noiseless.optim.searches import line_search_name
from noiseless.own import failure

REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""what an optimizer of torch raises for a setting that it refuses"""


def optimizer_arguments(name: str) -> list[str]:
    """The arguments that an optimizer takes besides the parameters.

    Args:
        name: name of the optimizer, in upper or lower case, or `package.module:Class`.

    Returns:
        Their names, in the order of its signature.

    Raises:
        UnknownNameError: for an unknown optimizer, with the nearest names.
    """
    kind = optimizer_entry(name).kind
    return [key for key in list(inspect.signature(kind).parameters)[1:] if key not in ("args", "kwargs")]


def parse_options(text: str) -> dict[str, Any]:
    """Arguments written as in a Python call: `betas=(0.8, 0.95), amsgrad=True, line_search_fn=strong_wolfe`.

    Args:
        text: NAME=VALUE, separated by commas. A value is a Python literal, or a bare word, which stands for itself.

    Returns:
        Values by name, in the given order.

    Raises:
        ValueError: for text of another form.
    """
    options: dict[str, Any] = {}
    try:
        call = ast.parse(f"_({text})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in options:
                raise ValueError
            value = keyword.value
            options[keyword.arg] = value.id if isinstance(value, ast.Name) else ast.literal_eval(value)
            if isinstance(options[keyword.arg], float) and not math.isfinite(options[keyword.arg]):
                raise ValueError
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(
            f"{text!r} is not of the form NAME=VALUE,NAME=VALUE with each name once and each value a finite number, a"
            " word, True, False, None, a quoted string or a tuple of these"
        ) from None
    return options


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], **settings: Any
) -> torch.optim.Optimizer:
    """Makes an optimizer by its name, after a trial of its settings.

    Args:
        name: "SGD", "adamw", "LBFGS", "Muon", ..., in upper or lower case, or `package.module:Class`.
        parameters: parameters to optimise, or groups of them with their settings.
        settings: its arguments.

    Returns:
        The optimizer.

    Raises:
        UnknownNameError: for an unknown optimizer, with the nearest names.
        ValueError: for an unknown setting, a value that the optimizer refuses, or one that needs sparse gradients.
    """
    entry, takes = optimizer_entry(name), optimizer_arguments(name)
    kind = entry.kind
    if entry.refusal:
        raise ValueError(f"{_origin(kind)} {entry.refusal}")
    stray = [key for key in settings if key not in takes]
    if stray and not takes_any(kind):
        raise ValueError(f"{_origin(kind)} takes no {', '.join(stray)}; it takes {', '.join(takes)}")
    own_name = name if ":" in name else None
    try:
        optimizer = kind(parameters, **settings)
        _try(kind, settings, optimizer.param_groups[0]["params"][0], own_name)
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        if not own_name and not isinstance(error, REFUSALS):
            raise
        refused = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        reason = failure(error) if own_name else error
        raise ValueError(f"{_origin(kind)} refuses {refused}: {reason}") from None
    return optimizer


class _RefusedError(Exception):
    """An optimizer of the user's own that cannot be used."""


def _try(kind: type[torch.optim.Optimizer], settings: dict[str, Any], like: Tensor, own_name: str | None) -> None:
    """Takes a few steps on a small quadratic, because some settings are refused, or fail, only in a step.

    For an optimizer of the user's own, also compares its steps with those that go on from its state.

    Raises:
        _RefusedError: for one of the user's own that ignores its closure, or remembers something elsewhere.
    """
    parameters = [torch.ones(shape, dtype=like.dtype, device=like.device) for shape in ((2, 2), (2, 2), (2, 2), (2,))]
    optimizer = kind([p.requires_grad_() for p in parameters], **settings)
    evaluations = 0

    def closure() -> Tensor:
        nonlocal evaluations
        evaluations += 1
        if evaluations > TRIAL_EVALUATIONS:
            raise EnoughError
        value = torch.zeros(())
        for curvature, p in enumerate(parameters, 1):
            p.grad = curvature * p.detach()
            value = value + (p.grad * p.detach()).sum() / 2
        return value

    with suppress(EnoughError):
        for _ in range(3):
            optimizer.step(closure)  # type: ignore[arg-type]
    if own_name is None:
        return
    if not evaluations:
        raise _RefusedError(
            f"step of {own_name} does not call its closure, which sets the gradients: begin it with loss = closure()"
        )
    try:
        refuse_hidden_state(own_name, lambda parameters: kind(parameters, **settings), like)
    except EnoughError:
        return
    except ValueError as error:
        raise _RefusedError(str(error)) from None


def line_search(optimizer: torch.optim.Optimizer) -> str | None:
    """The name of an optimizer's line search, which needs an exact objective; None if it has none."""
    if isinstance(optimizer, Searched):
        return line_search_name(optimizer.search)
    return optimizer.param_groups[0].get("line_search_fn")


def _origin(kind: type[torch.optim.Optimizer]) -> str:
    """The name by which an optimizer is imported."""
    packages = (package for package in ("noiseless.optim", "torch.optim") if kind.__module__.startswith(package))
    return f"{next(packages, kind.__module__)}.{kind.__name__}"
