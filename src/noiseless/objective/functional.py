"""Whether a module is a function of the vector theta: only then can its blocks be computed together, or compiled.

Blocks that are computed together get their parameters by `torch.func.functional_call`, which replaces those that the
forward looks up in its modules. A forward can reach parameters in other ways: by a list or closure that holds them, by
hooks on them, or by running again in the backward (activation checkpointing). Then gradients are wrong, without an
error. So one block's gradient is computed in both ways, at other values than the module's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import vmap

from noiseless.objective.space import ParameterSpace

TOLERANCE = 1e-5
"""largest difference of a parameter's gradient, in L2, as a share of the whole gradient: above rounding in float32"""
_known: WeakKeyDictionary[nn.Module, dict[Hashable, Known]] = WeakKeyDictionary()


class Known(NamedTuple):
    """What `check` has found for a module, loss and mode."""

    follows: bool = True
    """whether the module is a function of theta"""
    unreached: tuple[bool, ...] | None = None
    """for each parameter, whether a block's loss does not reach it; None: not known"""


def is_known(module: nn.Module, key: Hashable) -> bool:
    """Whether `check` has been called for a module and a key: its loss and mode."""
    return key in _known.get(module, {})


def known(module: nn.Module, key: Hashable) -> Known:
    """What `check` has found; before, that a module follows theta and reaches all parameters."""
    return _known.get(module, {}).get(key, Known())


def set_alone(module: nn.Module, key: Hashable) -> None:
    """Remembers that a module's blocks are computed one at a time."""
    _known.setdefault(module, {})[key] = Known(follows=False)


def mapped_over_blocks(
    function: Callable[..., tuple[Tensor, ...]], in_dims: Any = 0
) -> Callable[..., tuple[Tensor, ...]]:
    """`torch.func.vmap` without its warnings of operations that it computes one by one: a remark on speed."""
    mapped = vmap(function, in_dims)

    def call(*arguments: Any) -> tuple[Tensor, ...]:
        torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]
        try:
            return mapped(*arguments)
        finally:
            torch._C._functorch._set_vmap_fallback_warning_enabled(True)  # type: ignore[attr-defined]

    return call


def warn(problem: str | None) -> None:
    """Warns of a problem, if there is one."""
    if problem:
        warnings.warn(problem, stacklevel=4)


def check(
    module: nn.Module,
    key: Hashable,
    space: ParameterSpace,
    in_place: Callable[[], Tensor],
    functional: Callable[[Tensor], Tensor],
) -> None:
    """Compares the gradient of a block's loss by its parameters in place and as a function of theta, and remembers it.

    It also finds the parameters that a block's loss does not reach. Blocks that are computed together reach all the
    same ones: what they compute cannot depend on an example's values.

    Args:
        module: the module.
        key: its loss and mode.
        space: of the module.
        in_place: () -> the loss at the module's parameters.
        functional: (theta `[P]`) -> the loss as a function of theta; raises an error if it cannot be computed.
    """
    theta = (1.01 * space.theta + 1e-3).requires_grad_()
    try:
        with space.at(theta.detach()):
            derivatives = space.derivatives(in_place())
            expected = space.split(space.joined(derivatives))
            (gradient,) = torch.autograd.grad(functional(theta), theta, allow_unused=True, materialize_grads=True)
    except Exception:  # the sweep meets it again, and leaves vmap or raises it
        _known.setdefault(module, {})[key] = Known()
        return
    scale = float(torch.cat([part.flatten() for part in expected.values()]).norm())
    different = [
        name
        for name, part in space.split(gradient).items()
        if float((part - expected[name]).norm()) > TOLERANCE * scale
    ]
    unreached = tuple(part is None for part in derivatives)
    _known.setdefault(module, {})[key] = Known(not different, unreached)
    if different:
        warn(
            f"the gradient of {', '.join(different[:5])}{', ...' if len(different) > 5 else ''} does not follow the"
            " parameters that torch.func.functional_call sets: a list or closure holds them, a hook changes their"
            " gradient, or the loss uses them. So blocks are computed one at a time, and nothing is compiled"
        )
