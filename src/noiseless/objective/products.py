"""Hessian products of single blocks, by double backward: the only place that differentiates a loss more than once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from noiseless.objective.elementary import AnyOrder
from noiseless.objective.gradients import BlockLoss
from noiseless.objective.usercode import Need, refuse_once, user_code


def products(block_loss: BlockLoss, value: Callable[[], Tensor], V: Tensor, need: Need) -> Tensor:
    """The products `H v` of a value's Hessian H at the module's parameters.

    Args:
        block_loss: of the objective; it has to be in a sweep.
        value: () -> the value, a scalar; it runs `block_loss.value`, and may itself be made of gradients.
        V: vectors `[K, P]`, of the parameters' dtype.
        need: what needs the products, for the message where a derivative is missing.

    Returns:
        `[K, P]`.

    Raises:
        DerivativeError: as ModuleError, a ValueError: where torch does not have a derivative.
    """
    block_loss.norm.any_order = True
    try:
        with user_code(block_loss.module, need), AnyOrder():
            at = value()
            gradient = block_loss.space.gradient(at, create_graph=True)
            refuse_once(at, gradient, need)
            return torch.stack([block_loss.space.gradient(gradient, v) for v in V])
    finally:
        block_loss.norm.any_order = False
