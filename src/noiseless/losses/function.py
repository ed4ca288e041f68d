"""A loss of the user's own, named `package.module:name`. Step 3 of a training step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from noiseless import own
from noiseless.losses.classification import classifying
from noiseless.losses.terms import PerExample, terms
from noiseless.losses.torchlosses import unreduced

OWN = own.Kind(
    "loss",
    "a function of output and target, or a loss of torch.nn",
    harmless=("torch.nn.modules.loss", "torch.nn.functional", "noiseless.losses"),
)
TRIED = 8
"""number of examples with which a loss is tried"""


def loss_from(
    name: str, classes: int, options: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> PerExample:
    """A loss of the user's own, after a trial on class scores.

    The name is that of a function `(output [n, classes], target int64 [n]) -> [n]`, of another function that
    `EmpiricalRisk` takes as a loss, of a loss of torch (a module, or a class of modules), or of a `functools.partial`
    of these. A class is called with the options; a function gets them as arguments at each call.

    Args:
        name: `package.module:name`.
        classes: number of class scores.
        options: arguments by name.
        dtype: of the outputs; tensors of a module, such as class weights, are converted.
        device: of the outputs.

    Returns:
        The loss, declared to be one of class scores, so that hits are counted.

    Raises:
        ValueError: if it is no loss, does not take the options, fails, or depends on more than output and target.
    """
    loss = own.imported(OWN, name)
    if isinstance(loss, type):
        loss, options = own.called(name, loss, **options), {}
        if not callable(loss):
            raise ValueError(f"{name} makes objects of type {type(loss).__name__}; they must be functions or losses")
    if isinstance(loss, nn.Module):
        if options:
            raise ValueError(f"{name} is {own.described(loss)}, which takes no options: name its class, or a function")
        if any(p.requires_grad for p in loss.parameters()):
            raise ValueError(f"{name} has trainable parameters, which no optimizer moves: keep them in the model")
        loss = copy.deepcopy(loss).to(device, dtype)
    own.refuse_arguments(name, loss, ("output", "target"), options)
    if not isinstance(loss, nn.Module):
        loss = partial(
            loss, **options
        )  # also for the attribute of `classifying`, which is not set on the user's object
    _try(name, loss, classes, dtype, device)
    return classifying(loss)


def _try(name: str, loss: Callable[..., Any], classes: int, dtype: torch.dtype, device: torch.device) -> None:
    """Raises unless the loss gives values with a gradient for class scores, and the same ones again."""
    try:
        unreduced(loss)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    spread = torch.arange(TRIED * classes, dtype=dtype, device=device)
    scores = spread.mul(0.7).sin().reshape(TRIED, classes).requires_grad_()
    target = torch.arange(TRIED, device=device) % classes
    values = [_value(name, loss, scores, target) for _ in range(2)]
    if not values[0].requires_grad:
        raise ValueError(f"{name} returns values without a gradient: compute them from the output by torch's functions")
    if not torch.equal(values[0].nan_to_num(), values[1].nan_to_num()):
        raise ValueError(f"{name} returned two values for the same output and target: it must depend on nothing else")


def _value(name: str, loss: Callable[..., Any], scores: Tensor, target: Tensor) -> Tensor:
    """The mean of a loss; what is wrong with it, or what it raises, becomes one sentence that names it."""
    try:
        return terms(unreduced(loss), scores, target, what=name).mean()
    except ValueError as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name} failed on scores {list(scores.shape)}: {own.failure(error)}") from error
    except Exception as error:
        raise ValueError(f"{name} failed on scores {list(scores.shape)}: {own.failure(error)}") from error
