"""Optimizers and transforms of the user's own, named `package.module:name`, and what is checked before they are used.

A run goes on from a checkpoint to the same bits only if all that an optimizer or a transform remembers is in its state.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from noiseless import own
from noiseless.objective.space import ParameterSpace
from noiseless.optim.transforms import State, Transform

STORED = (bool, int, float, str, Tensor, type(None))
"""what a checkpoint can hold, in dictionaries, lists and tuples"""
TRIAL_EVALUATIONS = 20
"""most evaluations in a trial of settings"""
BEFORE, AFTER = 3, 4
"""steps of a trial before and after a state is written"""


class EnoughError(Exception):
    """Ends the trial of an optimizer that evaluates many times in one step."""


def _is_optimizer(target: object) -> bool:
    return isinstance(target, type) and issubclass(target, Optimizer) and target is not Optimizer


def _is_pair(target: object) -> bool:
    return isinstance(target, tuple) and len(target) == 2 and all(map(callable, target))


OPTIMIZER = own.Kind("optimizer", "a subclass of torch.optim.Optimizer", noun="class", fits=_is_optimizer)
TRANSFORM = own.Kind(
    "transform", "a Transform, a tuple (init, update), or a function that returns one", noun="transform",
    fits=lambda target: callable(target) or isinstance(target, Transform) or _is_pair(target),
    harmless=("noiseless.optim",),
)  # fmt: skip


def optimizer_class(name: str) -> type[Optimizer]:
    """The optimizer class of a name.

    Args:
        name: `package.module:Class`.

    Returns:
        The class.

    Raises:
        ValueError: if it is no class of optimizers, or its arguments lack `lr`.
    """
    kind: type[Optimizer] = own.imported(OPTIMIZER, name)
    arguments = inspect.signature(kind).parameters
    if "lr" not in arguments and not takes_any(kind):
        listed = ", ".join(arguments) or "none"
        raise ValueError(f"{name} takes no lr, which the schedule sets in its param_groups; its arguments are {listed}")
    try:
        inspect.signature(kind.step).bind(None, None)
    except TypeError:
        raise ValueError(
            f"step of {name} takes no closure: it must be step(self, closure), and begin with loss = closure(), which"
            " sets the gradients"
        ) from None
    return kind


def takes_any(kind: Callable[..., Any]) -> bool:
    """Whether a class or function takes arguments of any name, `**kwargs`."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(kind).parameters.values())


def refuse_hidden_state(name: str, make: Callable[[list[Tensor]], Optimizer], like: Tensor) -> None:
    """Raises for an optimizer whose steps do not go on from its `state_dict` with the same bits.

    The function `sum_i (p_i**2 / 2 + 4 p_i cos(0.9 k (i + 1)))` has another slope at each evaluation k, so that what an
    optimizer remembers has an effect.

    Args:
        name: of the optimizer, for messages.
        make: makes it for parameters.
        like: a tensor with the dtype and device of the parameters.

    Raises:
        ValueError: saying what it must keep, and where.
        EnoughError: for an optimizer that evaluates many times in a step; it is not tried further.
    """
    shapes = ((2, 2), (2, 2), (2, 2), (2,))
    first, second = ([torch.ones(shape, dtype=like.dtype, device=like.device) for shape in shapes] for _ in range(2))
    evaluations = 0

    def closure_of(parameters: list[Tensor]) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            nonlocal evaluations
            evaluations += 1
            if evaluations > TRIAL_EVALUATIONS:
                raise EnoughError
            value = torch.zeros(())
            for p in parameters:
                slope = (
                    torch.arange(1, p.numel() + 1, device=p.device).mul(0.9 * evaluations).cos().mul(4).reshape(p.shape)
                )
                p.grad = p.detach() + slope.to(p.dtype)
                value = value + (p.detach() * (p.detach() / 2 + slope)).sum().cpu()
            return value

        return closure

    optimizer = make([p.requires_grad_() for p in first])
    for _ in range(BEFORE):
        optimizer.step(closure_of(first))  # type: ignore[arg-type]
    state = copy.deepcopy(optimizer.state_dict())
    refuse_unstorable(f"the state_dict of {name}", state)
    resumed = make([p.requires_grad_() for p in second])
    resumed.load_state_dict(copy.deepcopy(state))
    with torch.no_grad():
        for p, q in zip(first, second, strict=True):
            q.copy_(p)
    at_state = evaluations
    for moving, parameters in ((optimizer, first), (resumed, second)):
        evaluations = at_state
        for _ in range(AFTER):
            moving.step(closure_of(parameters))  # type: ignore[arg-type]
    if not all(torch.equal(p, q) for p, q in zip(first, second, strict=True)):
        raise ValueError(
            f"{name} does not go on from its state_dict with the same steps: keep what it remembers in self.state[p],"
            " as tensors in the dtype of p, or in self.param_groups, and draw no random numbers"
        )


def transform_from(name: str, space: ParameterSpace, seed: int, options: Mapping[str, Any]) -> Transform:
    """A transform of the user's own, after a trial of one update.

    The name is that of a `Transform`, of a tuple `(init, update)`, or of a function or class that returns one of these.
    A function is called with the options, and with `space` and `seed` where it has arguments of these names.

    Args:
        name: `package.module:name`.
        space: of the parameters, with their names and shapes.
        seed: of the run, for keyed draws.
        options: arguments by name.

    Returns:
        The transform; its state is moved to the gradient's device.

    Raises:
        ValueError: if it is no transform, does not take the options, fails, changes its arguments, or returns another
            result for the same ones.
    """
    target = own.imported(TRANSFORM, name)
    if callable(target):
        takes = inspect.signature(target).parameters
        given = {key: value for key, value in {"space": space, "seed": seed}.items() if key in takes}
        target = own.called(name, target, **{**given, **options})
    elif options:
        raise ValueError(f"{name} is {own.described(target)}, which takes no options: name a function that returns it")
    if _is_pair(target):
        target = Transform(name, *target)
    if not isinstance(target, Transform):
        raise ValueError(f"{name} returned {own.described(target)}; it must be {TRANSFORM.wanted}")
    transform = _guarded(name, target)
    _try(name, transform, space.theta.detach())
    return transform


def _guarded(name: str, transform: Transform) -> Transform:
    """The transform with its name in the chain, and with a check of each result."""

    def init(theta: Tensor) -> State:
        state = _asked(f"init of {name}", transform.init, theta)
        if not isinstance(state, dict):
            raise ValueError(f"init of {name} returned {own.described(state)}; its state must be a dict")
        return state

    def update(gradient: Tensor, state: State, theta: Tensor, step: int) -> tuple[Tensor, State]:
        state = _moved(state, gradient.device)
        returned = _asked(f"update of {name}", transform.update, gradient, state, theta, step)
        if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], dict):
            raise ValueError(f"update of {name} must return a tuple (gradient, state) with a dict as state")
        changed = returned[0]
        if not isinstance(changed, Tensor) or (changed.shape, changed.dtype) != (gradient.shape, gradient.dtype):
            what = f"{changed.dtype} {list(changed.shape)}" if isinstance(changed, Tensor) else own.described(changed)
            raise ValueError(
                f"update of {name} returned {what} as gradient; it must be {gradient.dtype} {list(gradient.shape)}"
            )
        return changed, returned[1]

    return replace(transform, name=f"transform({name})", init=init, update=update)


def _asked(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        with torch.no_grad():
            return function(*arguments)
    except Exception as error:
        raise ValueError(f"{what} failed: {own.failure(error)}") from error


def _try(name: str, transform: Transform, theta: Tensor) -> None:
    """Raises for a transform that changes its arguments, or whose result depends on anything else."""
    gradient = (torch.arange(len(theta), device=theta.device) % 7 - 3).to(theta.dtype) / 16
    state = transform.init(theta)
    refuse_unstorable(f"the state of {name}", state)
    before = copy.deepcopy((gradient, state, theta))
    first, after = transform.update(gradient, state, theta, 0)
    if not _equal((gradient, state, theta), before):
        raise ValueError(f"update of {name} changes its arguments: let it return new tensors and a new dict")
    refuse_unstorable(f"the state of {name}", after)
    first, after = copy.deepcopy((first, after))
    if not _equal((first, after), transform.update(gradient, state, theta, 0)):
        raise ValueError(
            f"update of {name} returned two results for the same arguments: keep what it remembers in the state that it"
            " returns, and draw random numbers by noiseless.keyed, from the seed and the step"
        )


def _equal(first: Any, second: Any) -> bool:
    """Whether two nested values have the same bits; not a number equals itself."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_equal, first, second))
    return type(first) is type(second) and (first == second or first != first)


def _moved(state: Any, device: torch.device) -> Any:
    """A state on a device: that of a checkpoint is read to the CPU."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {key: _moved(part, device) for key, part in state.items()}
    return type(state)(_moved(part, device) for part in state) if isinstance(state, (list, tuple)) else state


def refuse_unstorable(what: str, value: Any, place: str = "") -> None:
    """Raises for a state that a checkpoint cannot hold.

    Args:
        what: the state, for the message.
        value: nested dictionaries, lists and tuples.
        place: of the value in the state, for the message.

    Raises:
        ValueError: naming the value.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, (str, int)):
                raise ValueError(f"{what} has the key {key!r:.40}; a checkpoint has texts and whole numbers as keys")
            refuse_unstorable(what, part, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for number, part in enumerate(value):
            refuse_unstorable(what, part, f"{place}[{number}]")
    elif not isinstance(value, STORED):
        raise ValueError(
            f"{what} holds {own.described(value)} at {place or 'the top'}; a checkpoint holds tensors, numbers, texts,"
            " None, and dicts, lists and tuples of these"
        )
