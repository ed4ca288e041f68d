"""The part of a recipe about what moves the parameters."""

from __future__ import annotations

from dataclasses import dataclass

from noiseless.recipes.checks import at_least, positive


@dataclass(frozen=True)
class Optimizer:
    """What moves the parameters."""

    name: str = "SGD"
    """any optimizer of torch.optim, Muon for convolutions too; FISTA; DampedLBFGS"""
    lr: float = 0.1
    """peak learning rate"""
    momentum: float | None = 0.9
    """momentum, for optimizers that take it"""
    nesterov: bool | None = True
    """Nesterov momentum, for optimizers that take it"""
    weight_decay: float | None = 5e-4
    """weight decay on all parameters, for optimizers that take it"""
    decay_biases: bool = True
    """weight decay acts on biases and on normalisations' parameters, too"""
    options: str = ""
    """further arguments of the optimizer, as in a call: NAME=VALUE,NAME=VALUE"""
    line_search: str = "none"
    """how far to go along the optimizer's direction: none (lr), armijo, wolfe, non-monotone or restarting, with lr as
    the first trial"""
    line_search_options: str = ""
    """arguments of the line search, as in a call: NAME=VALUE,NAME=VALUE"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        positive("lr", self.lr)
        at_least("momentum", self.momentum, 0)
        at_least("weight-decay", self.weight_decay, 0)
