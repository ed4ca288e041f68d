"""The registry of optimizers: any of `torch.optim` that takes dense gradients, and the few that torch lacks.

A recipe can name any optimizer that is registered here; its entry holds what the program must know of it. A recipe can
also name those of `torch.optim` that have no entry; the defaults of `OptimizerEntry` hold for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from noiseless.errors import UnknownNameError
from noiseless.optim.fista import FISTA
from noiseless.optim.function import optimizer_class
from noiseless.optim.lbfgs import DampedLBFGS
from noiseless.optim.muon import Muon
from noiseless.optim.recursion import Recursion
from noiseless.optim.scalarrmsprop import ScalarRMSprop
from noiseless.own import PATTERN

Settings = Mapping[str, Any]
"""a group of an optimizer's `param_groups`"""


@dataclass(frozen=True)
class OptimizerEntry:
    """Properties of an optimizer class. Its arguments are not listed; they are read from the class's signature."""

    kind: type[Optimizer]
    """the class"""
    coupled_decay: bool = False
    """whether its weight decay is added to the gradient, and so is part of the function; see `couples_decay`"""
    mean_keys: tuple[str, ...] = ("momentum_buffer", "exp_avg")
    """keys under which its state may hold a parameter's running mean of gradients; the first that exists is used"""
    state_size: Callable[[Settings], float] | None = None
    """settings -> numbers stored for each parameter in the long run; None: as many as after the first step"""
    recursion: Callable[[Settings], Recursion] | None = None
    """settings with lr above 0 -> its steps on a quadratic, along an eigenvector of the Hessian (of the
    preconditioned Hessian if `diagonal` is given). None: they are no such recursion, or it is not known"""
    diagonal: Callable[[Settings, Mapping[str, Any]], Tensor] | None = None
    """(settings, state of a parameter after a step) -> D, shaped like the parameter or a scalar: the step goes along
    `D^-1` times a mean of gradients. None: there is no D, or it is not known"""
    radii: Callable[[Any], Mapping[Tensor, float]] | None = None
    """optimizer -> parameter -> r, for an optimizer that moves a matrix by lr r times the orthogonal factor of a mean
    of its gradients: steepest descent in spectral norms. None: it does not"""
    evaluates_itself: bool = False
    """whether a step may call its closure several times, so that `Searched` cannot add a line search"""
    one_rate: bool = False
    """whether all parameters need the same learning rate, because a step goes along one direction for all of them"""
    refusal: str | None = None
    """why it cannot be used, as the predicate of a sentence; None: it can be used"""

    def couples_decay(self, settings: Settings) -> bool:
        """Whether the weight decay of a group is added to the gradient.

        Args:
            settings: settings of the group; `decoupled_weight_decay=True`, an option of Adam, overrules
                `coupled_decay`.

        Returns:
            Whether it is added.
        """
        return self.coupled_decay and not settings.get("decoupled_weight_decay", False)

    @property
    def preconditions(self) -> bool:
        """Whether the edge of stability is an eigenvalue of the preconditioned Hessian."""
        return self.recursion is not None and self.diagonal is not None


def _sgd_recursion(settings: Settings) -> Recursion:
    m, d = float(settings["momentum"]), float(settings["dampening"]) if settings["momentum"] else 0.0
    return Recursion(float(settings["lr"]), m, 1 - d, settings["nesterov"], coupled=float(settings["weight_decay"]))


def _adam_recursion(settings: Settings) -> Recursion:
    """A coupled decay is a part of the preconditioned Hessian."""
    lr, b1, w = float(settings["lr"]), float(settings["betas"][0]), float(settings["weight_decay"])
    return Recursion(lr, b1, 1 - b1, decoupled=w if settings.get("decoupled_weight_decay", True) else 0.0)


def _rmsprop_recursion(settings: Settings) -> Recursion:
    """A decay is a part of the preconditioned Hessian."""
    return Recursion(float(settings["lr"]), float(settings["momentum"]))


def _adam_diagonal(settings: Settings, state: Mapping[str, Any]) -> Tensor:
    v: Tensor = state["max_exp_avg_sq"] if settings["amsgrad"] else state["exp_avg_sq"]
    return (v / (1 - float(settings["betas"][1]) ** float(state["step"]))).sqrt() + float(settings["eps"])


def _adagrad_diagonal(settings: Settings, state: Mapping[str, Any]) -> Tensor:
    return torch.sqrt(state["sum"]) + float(settings["eps"])


def _rmsprop_diagonal(settings: Settings, state: Mapping[str, Any]) -> Tensor:
    v = state["square_avg"]
    if settings["centered"]:
        v = v - state["grad_avg"].square()
    return v.clamp(min=0).sqrt() + float(settings["eps"])


def _scalar_recursion(settings: Settings) -> Recursion:
    """As for RMSprop."""
    return Recursion(float(settings["lr"]))


def _scalar_diagonal(settings: Settings, state: Mapping[str, Any]) -> Tensor:
    return torch.sqrt(state["square_avg"]) + float(settings["eps"])


def _lbfgs_size(settings: Settings) -> float:
    """Differences of points and of gradients; the last gradient; the last point (ours) or direction (torch's)."""
    return 2.0 * settings["history_size"] + 2


_ENTRIES = (
    # of torch
    OptimizerEntry(torch.optim.ASGD, coupled_decay=True),
    OptimizerEntry(torch.optim.Adadelta, coupled_decay=True),
    OptimizerEntry(torch.optim.Adagrad, coupled_decay=True, diagonal=_adagrad_diagonal),
    OptimizerEntry(torch.optim.Adam, coupled_decay=True, recursion=_adam_recursion, diagonal=_adam_diagonal),
    OptimizerEntry(torch.optim.AdamW, recursion=_adam_recursion, diagonal=_adam_diagonal),
    OptimizerEntry(torch.optim.Adamax, coupled_decay=True),
    OptimizerEntry(torch.optim.LBFGS, state_size=_lbfgs_size, evaluates_itself=True, one_rate=True),
    OptimizerEntry(torch.optim.NAdam, coupled_decay=True),
    OptimizerEntry(torch.optim.RAdam, coupled_decay=True),
    OptimizerEntry(torch.optim.RMSprop, coupled_decay=True, recursion=_rmsprop_recursion, diagonal=_rmsprop_diagonal),
    OptimizerEntry(torch.optim.SGD, coupled_decay=True, recursion=_sgd_recursion),
    OptimizerEntry(torch.optim.SparseAdam, refusal="needs sparse gradients, and these are dense; use Adam"),
    # ours
    OptimizerEntry(DampedLBFGS, coupled_decay=True, state_size=_lbfgs_size, one_rate=True),
    OptimizerEntry(FISTA, coupled_decay=True),
    OptimizerEntry(
        ScalarRMSprop,
        coupled_decay=True,
        state_size=lambda settings: 0.0,
        recursion=_scalar_recursion,
        diagonal=_scalar_diagonal,
    ),
    OptimizerEntry(Muon, radii=Muon.radii),  # hides torch's, which takes matrices only
)

OPTIMIZERS: dict[str, OptimizerEntry] = {entry.kind.__name__: entry for entry in _ENTRIES}
"""name -> entry. To add an optimizer, add an entry; it hides an optimizer of `torch.optim` of the same name"""


def optimizer_names() -> list[str]:
    """The names of the registry's and `torch.optim`'s optimizers, in their spelling, sorted."""
    torch_names = {
        name
        for name, member in vars(torch.optim).items()
        if inspect.isclass(member) and issubclass(member, Optimizer) and member is not Optimizer
    }
    return sorted(torch_names | OPTIMIZERS.keys())


def optimizer_entry(name: str) -> OptimizerEntry:
    """The entry of an optimizer, by name.

    Args:
        name: name of the optimizer, in upper or lower case, or `package.module:Class`, which is imported if trusted.

    Returns:
        Its entry; an entry of defaults for a class that has none.

    Raises:
        UnknownNameError: for an unknown optimizer, with the nearest names.
    """
    if ":" in name:
        kind = optimizer_class(name)
        return next((entry for entry in OPTIMIZERS.values() if entry.kind is kind), OptimizerEntry(kind))
    known = {spelled.lower(): spelled for spelled in optimizer_names()}
    if name.lower() not in known:
        raise UnknownNameError("optimizer", name, (*known.values(), PATTERN))
    spelled = known[name.lower()]
    return OPTIMIZERS[spelled] if spelled in OPTIMIZERS else OptimizerEntry(getattr(torch.optim, spelled))


def entry_of(optimizer: Optimizer) -> OptimizerEntry:
    """The entry of an optimizer's class.

    Args:
        optimizer: an optimizer of any class.

    Returns:
        The entry of its class; an entry of defaults if it has none.
    """
    kind = type(optimizer)
    return next((entry for entry in OPTIMIZERS.values() if entry.kind is kind), OptimizerEntry(kind))
