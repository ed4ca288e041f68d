"""Errors that come out of a user's module or loss: told in one sentence with their place, and the original as cause.

An error is the user's if, below the last line of this package that was executed, there is a line of files that are
neither this package's nor torch's, the forward of one of torch's layers, or torch's backward. All others are raised as
they are, because they may be bugs of this package; and so are those that say that memory is exhausted.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, once_differentiable

from noiseless.errors import DerivativeError, ModuleError, reason

_PACKAGE = Path(__file__).parents[1]
_TORCH = Path(torch.__file__).parent
_STANDARD = Path(sysconfig.get_path("stdlib"))
_MODELS = _PACKAGE / "models"
"""stands where a user's module can stand"""
_LOSSES = _PACKAGE / "losses"
_ENGINE = _TORCH / "autograd" / "graph.py"
"""through which every backward goes"""
_OPERATION = re.compile(r"derivative for '?(?:aten::)?_*(\w+?)(?:_backward)?'? is not|^_*(\w+?) does not support")
_OUT_OF_MEMORY = re.compile("out of memory|allocate memory|not enough memory", re.IGNORECASE)


@dataclass(frozen=True)
class Need:
    """What needs a derivative of a higher order than the first."""

    what: str
    """subject and verb of a sentence"""
    order: str
    remedy: str
    """what works instead"""


PRODUCTS = Need(
    "Hessian products need", "second",
    "use what needs gradients only: evaluate, measure, landscapes, flatness, gradient noise, the forward penalty",
)  # fmt: skip
EXACT_PENALTY = Need(
    "the exact penalty needs", "second",
    "choose the penalty's method forward or central (--penalty-method forward), which need gradients only",
)  # fmt: skip
PENALISED_PRODUCTS = Need(
    "Hessian products of a penalised value need", "third", "use those of the risk without the penalty (--of loss)"
)

HESSIAN_GRADIENTS = Need(
    "gradients of the Hessian need", "third", "use what needs Hessian products only: sharpness, its edge and density"
)


OUTSIDE_VMAP = (
    (".item()", "it reads a value of a tensor, as if, .item() and one_hot do",
     "use torch.where in place of if, torch.eye(classes)[target] in place of one_hot, and tensors in place of numbers"),
    ("control flow", "it branches on a value of a tensor", "use torch.where in place of if"),
    ("dynamic shape", "the shape of a result depends on values, as with a boolean mask",
     "use torch.where, or multiply by the mask"),
)  # fmt: skip
"""words in an error of `torch.func.vmap` -> what the user's code does, and what to write instead"""


class _HasModule(Protocol):
    @property
    def module(self) -> nn.Module: ...


Has = TypeVar("Has", bound=_HasModule)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@contextmanager
def user_code(module: nn.Module, need: Need | None = None) -> Iterator[None]:
    """A context in which a user's module and loss run: their errors are raised as `ModuleError`.

    Args:
        module: the user's module.
        need: what needs a derivative of higher order; None: nothing is differentiated more than once.

    Yields:
        Nothing.

    Raises:
        ModuleError: with the place of an error of the module or the loss, and the error as its cause.
        DerivativeError: if torch cannot differentiate the loss as often as needed.
    """
    try:
        yield
    except Exception as error:
        told = _told(error, module, need)
        if told is None:
            raise
        raise told from error


def told(
    method: Callable[Concatenate[Has, Parameters], Result],
) -> Callable[Concatenate[Has, Parameters], Result]:
    """Decorates a method that runs its object's module: the call is in the context `user_code`."""

    @wraps(method)
    def call(owner: Has, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with user_code(owner.module):
            return method(owner, *args, **kwargs)

    return call


def _told(error: Exception, module: nn.Module, need: Need | None) -> ModuleError | None:
    """The error to raise in place of one that is the user's; None for others."""
    if isinstance(error, (ModuleError, MemoryError, Warning)) or _OUT_OF_MEMORY.search(str(error)):
        return None
    frames = list(traceback.walk_tb(error.__traceback__))
    kinds = [_kind(frame) for frame, _ in frames]
    if isinstance(error, ValueError) and _file(frames[-1][0]).is_relative_to(_PACKAGE):
        return None  # this package has told it in a sentence
    last = max(k for k, kind in enumerate(kinds) if kind == "package")
    below = [frame for frame, _ in frames[last + 1 :]]
    of_user = [k for k in range(last + 1, len(frames)) if kinds[k] in ("user", "library")]
    differentiates = any(_file(frame) == _ENGINE for frame in below)
    in_loss = any(_file(frame).is_relative_to(_LOSSES) for frame, _ in frames)
    if of_user:
        frame, line = frames[max((k for k in of_user if kinds[k] == "user"), default=of_user[-1])]
        place = f"{frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name}"
    elif differentiates and need is not None:
        return _lacking(error, need)
    else:
        layers = [frame.f_locals["self"] for frame in below if isinstance(frame.f_locals.get("self"), nn.Module)]
        if layers:
            place = f"in {_name(layers[-1], module)}"
        elif below and _file(frames[last][0]).is_relative_to(_LOSSES):
            place = f"in {below[-1].f_code.co_name}"
        elif differentiates:
            place = f"of {type(module).__name__}"
        else:
            return None
    what = "the backward" if differentiates else "the loss" if in_loss else "the module's forward"
    return ModuleError(f"{what} raises {reason(error)} ({place})")


def outside_vmap(error: Exception) -> str:
    """Why blocks cannot be computed together, and what to write instead; the results are the same.

    Args:
        error: of a module or loss under `torch.func.vmap`.

    Returns:
        A message of one sentence, with the line of the user's code.
    """
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _kind(frame) == "user"]
    place = "" if not frames else f" ({frames[-1][0].f_code.co_filename}, line {frames[-1][1]})"
    known = (texts for word, *texts in OUTSIDE_VMAP if word in str(error))
    cause, remedy = next(known, (reason(error), "rewrite that line"))
    return (
        f"blocks are computed one at a time, because the module or loss does not run under torch.func.vmap: {cause}"
        f"{place}; to compute a chunk's blocks together, {remedy}"
    )


def refuse_once(value: Tensor, gradient: Tensor, need: Need) -> None:
    """Raises if a value's gradient depends on the parameters by a function that torch differentiates only once.

    torch (2.14) takes the derivative of what `once_differentiable` has marked for 0, without an error, where gradients
    of chosen tensors are computed.

    Args:
        value: a scalar.
        gradient: of the value, with its graph.
        need: what needs its derivative.

    Raises:
        DerivativeError: naming the functions.
    """
    if any(node.name() == "torch::autograd::Error" for node in nodes(gradient)):
        functions: set[Any] = {type(node) for node in nodes(value) if isinstance(node, BackwardCFunction)}
        classes = {function._forward_cls for function in functions}
        marked = sorted(c.__qualname__ for c in classes if getattr(c.backward, "__code__", None) is _ONCE.__code__)
        raise DerivativeError(
            f"{need.what} the {need.order} derivative of {' or '.join(marked) or 'a function'}, which is marked with"
            f" once_differentiable: {need.remedy}"
        )


_ONCE = once_differentiable(lambda ctx: None)


def nodes(tensor: Tensor) -> Iterator[Any]:
    """The nodes of a tensor's graph, each once.

    Args:
        tensor: with its graph.

    Yields:
        The nodes.
    """
    seen, waiting = set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]


def _lacking(error: Exception, need: Need) -> DerivativeError:
    known = _OPERATION.search(str(error))
    operation = next(name for name in known.groups() if name) if known else "an operation of the module or the loss"
    return DerivativeError(
        f"{need.what} the {need.order} derivative of {operation}, which torch does not have ({reason(error)}):"
        f" {need.remedy}"
    )


def _kind(frame: FrameType) -> str:
    """Whose code a frame executes: "package", "torch" (with Python's own), "library" (installed), or "user"."""
    file = _file(frame)
    if frame.f_code.co_filename.startswith("<"):
        return "user" if frame.f_code.co_filename in ("<stdin>", "<string>") else "torch"
    if file.is_relative_to(_TORCH) or frame.f_code.co_name == "__torch_function__":  # a mode only passes a call on
        return "torch"
    if file.is_relative_to(_PACKAGE) and not file.is_relative_to(_MODELS):
        return "package"
    if "site-packages" in file.parts:
        return "library"
    return "torch" if file.is_relative_to(_STANDARD) else "user"


def _file(frame: FrameType) -> Path:
    return Path(frame.f_code.co_filename).absolute()


def _name(layer: nn.Module, module: nn.Module) -> str:
    """A layer as a user finds it: its name in the module, and its type."""
    name = next((name for name, part in module.named_modules() if part is layer), "")
    kind = type(layer).__name__
    article = "an" if kind[0] in "AEIOU" else "a"
    return f"layer {name}, {article} {kind}" if name else f"{article} {kind}"
