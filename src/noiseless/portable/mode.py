"""The mode in which every operation has the same bits on every machine, or is refused by name.

It stands below autograd (a dispatch mode), so it meets each operation of a forward, a backward and any further
derivative, of an optimizer's step, and of a draw. An operation is executed as it is (`exact`), replaced (`rules`),
taken apart into others that come back here, or refused: what is not known cannot slip through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from noiseless.portable.exact import EXACT
from noiseless.portable.rules import BITS, RULES, TIES

DTYPES = (torch.float32, torch.float64)
"""floating-point dtypes"""


class NotPortableError(ValueError):
    """An operation that has not the same bits on every machine."""


class Portable(TorchDispatchMode):
    """Context manager in which operations have the same bits on every machine."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Executes an operation, or its replacement."""
        kwargs = kwargs or {}
        name, in_place = _name(func)
        if name in EXACT or (name in ("add", "sub") and len(args) == 2 and kwargs.get("alpha", 1) == 1):
            return func(*args, **kwargs)
        rule = RULES.get(name)
        if (
            name not in TIES
            and not any(_floating(x) for x in _leaves(args, kwargs))
            and (name in BITS or not _draws(name))
        ):
            result = func(*args, **kwargs)
            if not any(_floating(x) for x in _leaves((result,), {})):  # whole numbers and truth values are exact
                return result
        _refuse_dtypes(func, args)
        if rule is not None:
            out = kwargs.pop("out", None)
            result = rule(*args, **kwargs)
            if result is not NotImplemented:
                if in_place:
                    return args[0].copy_(result)
                return result if out is None else out.copy_(result)
        elif (decomposition := decomposition_table.get(func)) is not None and not in_place:
            with self:
                return decomposition(*args, **kwargs)
        elif func._can_decompose():
            with self:
                return func.decompose(*args, **kwargs)
        raise _refused(func)


@cache
def _name(func: Any) -> tuple[str, bool]:
    """The name of an operation without the underscore of one that works in place, and whether it does."""
    space, _, name = func._schema.name.partition("::")
    if space != "aten":  # of another library, which may have the same name
        return func._schema.name, False
    if name in EXACT:
        return name, False
    in_place = name.endswith("_") and not name.endswith("__")
    return (name[:-1] if in_place else name), in_place and func._schema.is_mutable


def _floating(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def _leaves(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """The arguments of an operation, and the elements of those that are lists or tuples."""
    for x in (*args, *kwargs.values()):
        if isinstance(x, (list, tuple)):
            yield from x
        else:
            yield x


def _draws(name: str) -> bool:
    return name.startswith(("rand", "normal", "bernoulli", "multinomial", "poisson", "binomial"))


def _refuse_dtypes(func: Any, args: Any) -> None:
    for x in _leaves(args, {}):
        if _floating(x) and (x.dtype not in DTYPES or x.device.type != "cpu"):
            raise NotPortableError(
                f"{_SENTENCE.format(_name(func)[0])} for {x.dtype} on {x.device}: portable bits are those of float32"
                " and float64 on CPUs"
            )


_SENTENCE = "the operation {} has no portable form, so its bits may differ between machines"


def _refused(func: Any) -> NotPortableError:
    return NotPortableError(
        f"{_SENTENCE.format(_name(func)[0])}: use a model, loss or optimizer without it, or leave out --portable"
    )


def active() -> bool:
    """Whether the arithmetic is portable here."""
    return any(isinstance(mode, Portable) for mode in _get_current_dispatch_mode_stack())


@contextmanager
def arithmetic(portable: bool = True) -> Iterator[None]:
    """A context in which the results of torch's operations on CPUs have the same bits on every machine.

    An operation that has no portable form raises `NotPortableError`, a ValueError.

    Args:
        portable: False: nothing is changed.

    Yields:
        Nothing.
    """
    if not portable or active():
        yield
        return
    with ExitStack() as stack:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(Portable())  # type: ignore[no-untyped-call]
        yield
