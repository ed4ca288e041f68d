"""Freezes parameters of a model, so that they are not part of theta: a part of a pretrained network that is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from noiseless.patterns import matched

LISTED = 3
"""number of names of layers in a message"""


def freeze(module: nn.Module, patterns: Sequence[str]) -> str | None:
    """Freezes the parameters whose names match one of some patterns: `requires_grad` becomes False.

    The mode of the module's layers is not changed: a batch norm layer in training mode normalises with the statistics
    of its block and moves its running statistics, whether its weights are frozen or not.

    Args:
        module: changed in place.
        patterns: of `fnmatch`, for names as in `module.named_parameters()`. The name of a module stands for all its
            parameters.

    Returns:
        A message about what is frozen; None without patterns.

    Raises:
        ValueError: for a pattern that matches no parameter, or if no parameter would be left to train.
    """
    if not patterns:
        return None
    parameters = dict(module.named_parameters())
    names = matched("--freeze", patterns, list(parameters))
    if all(name in names or not p.requires_grad for name, p in parameters.items()):
        raise ValueError(
            f"--freeze {' '.join(patterns)} freezes all {len(parameters)} parameter tensors: there is nothing to train"
        )
    for name in names:
        parameters[name].requires_grad_(False)
    numbers, total = (sum(parameters[name].numel() for name in some) for some in (names, parameters))
    message = f"frozen: {len(names)} of {len(parameters)} parameter tensors, {numbers:,} of {total:,} parameters"
    norms = [name for name in frozen_norms(module) if names & _held(module, name)]
    if norms:
        more = f" and {len(norms) - LISTED} more" if len(norms) > LISTED else ""
        message += (
            f"; in training mode, the batch norm of {', '.join(norms[:LISTED])}{more} still normalises by blocks and"
            " moves its running statistics"
        )
    return message


@contextmanager
def frozen(module: nn.Module, patterns: Sequence[str]) -> Iterator[None]:
    """A context in which parameters are frozen, see `freeze`; at its end those are trainable that were before.

    Args:
        module: any.
        patterns: of parameter names.

    Yields:
        Nothing.
    """
    before = [(p, p.requires_grad) for p in module.parameters()]
    freeze(module, patterns)
    try:
        yield
    finally:
        for p, trainable in before:
            p.requires_grad_(trainable)


def frozen_norms(module: nn.Module) -> list[str]:
    """The names of the batch norm layers with running statistics whose parameters are all frozen."""
    return [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm)
        and layer.running_mean is not None
        and not any(p.requires_grad for p in layer.parameters())
    ]


def _held(module: nn.Module, name: str) -> set[str]:
    """The names of the parameters of a module's part."""
    prefix = f"{name}." if name else ""
    return {prefix + own for own, _ in module.get_submodule(name).named_parameters()}
