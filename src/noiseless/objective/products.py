"""Hessian products of single blocks, by double backward: the only place that differentiates a loss more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from noiseless import keyed
from noiseless.examples.blocks import Batch
from noiseless.examples.trees import mapped
from noiseless.objective.elementary import AnyOrder
from noiseless.objective.gradients import BlockLoss
from noiseless.objective.usercode import Need, refuse_once, user_code


def products(
    block_loss: BlockLoss, value: Callable[[], tuple[Tensor, Tensor]], V: Tensor, need: Need
) -> tuple[Tensor, Tensor]:
    """The products `H v` of a value's Hessian H at the module's parameters.

    Args:
        block_loss: of the objective; it has to be in a sweep.
        value: () -> the value, a scalar, and its weight; it runs `block_loss.value`, and may itself be made of
            gradients.
        V: vectors `[K, P]`, of the parameters' dtype.
        need: what needs the products, for the message where a derivative is missing.

    Returns:
        `[K, P]`, and the value's weight.

    Raises:
        DerivativeError: as ModuleError, a ValueError: where torch does not have a derivative.
    """
    with any_order(block_loss), user_code(block_loss.module, need):
        at, weight = value()
        gradient = block_loss.space.gradient(at, create_graph=True)
        refuse_once(at, gradient, need)
        return torch.stack([block_loss.space.gradient(gradient, v) for v in V]), weight


@contextmanager
def any_order(block_loss: BlockLoss) -> Iterator[None]:
    """A context in which block losses can be differentiated to any order, and have to be.

    Args:
        block_loss: of the objective.

    Yields:
        Nothing.
    """
    block_loss.norm.any_order = True
    try:
        with AnyOrder():
            yield
    finally:
        block_loss.norm.any_order = False


def in_float64(block_loss: BlockLoss, batch: Batch) -> Callable[[Tensor], Tensor]:
    """The mean loss of a batch's first block as a function of theta, in float64 as far as the module follows it.

    Args:
        block_loss: of the objective; it has to be in a sweep when the function is called.
        batch: of the block.

    Returns:
        theta float64 `[P]` -> the loss, a scalar.
    """
    state = {name: _wide(tensor) for name, tensor in block_loss._held().items()}
    wide = replace(block_loss, scoring=block_loss.scoring.double(), autocast=None, compiler=None)
    inputs, target = mapped(lambda x: _wide(x[0]), (batch.inputs, batch.target))

    def value(theta: Tensor) -> Tensor:
        with keyed.torch_generators(batch.seed, "module", batch.step, batch.first, block_loss.space.device):
            return wide._functional(theta, inputs, target, batch.size, False, state)[0]

    return value


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
