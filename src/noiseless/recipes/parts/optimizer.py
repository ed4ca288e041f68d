"""The part of a recipe about what moves the parameters."""

from __future__ import annotations

from dataclasses import dataclass

from noiseless.patterns import read_factors
from noiseless.recipes.checks import at_least, below_one, positive


@dataclass(frozen=True)
class Optimizer:
    """What moves the parameters."""

    name: str = "SGD"
    """optimizer: any of torch.optim (Muon also for convolutions), FISTA, ScalarRMSprop, DampedLBFGS or
    package.module:Class"""
    lr: float = 0.1
    """peak learning rate"""
    momentum: float | None = 0.9
    """momentum, for optimizers that have it; None: the optimizer's default"""
    nesterov: bool | None = True
    """Nesterov momentum, for optimizers that have it; None: the optimizer's default"""
    weight_decay: float | None = 5e-4
    """weight decay, for optimizers that have it; None: the optimizer's default"""
    decay_biases: bool = True
    """apply weight decay to biases and to parameters of normalisation layers, too"""
    lr_factors: str = ""
    """learning rates by layer, in units of lr: PATTERN=FACTOR,PATTERN=FACTOR for parameter names as in --freeze, of
    which the first that matches decides, such as fc=1,layer4=0.5,*=0.1; 1 where none does"""
    options: str = ""
    """further arguments of the optimizer, written as in a call: NAME=VALUE,NAME=VALUE"""
    line_search: str = "none"
    """line search along the optimizer's direction, with lr as the first trial: armijo, wolfe, non-monotone or
    restarting; none: always lr"""
    line_search_options: str = ""
    """arguments of the line search, written as in a call: NAME=VALUE,NAME=VALUE"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        positive("lr", self.lr)
        below_one("momentum", self.momentum)
        at_least("weight-decay", self.weight_decay, 0)
        read_factors("--lr-factors", self.lr_factors)
