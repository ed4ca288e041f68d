"""Whether a sweep computes what the module as it stands computes: loss and gradient of a few examples, in both ways.

A sweep replaces batch norm, changes the memory format of images and takes losses apart. Before an objective's first
one, plain autograd through the user's own module gives the value to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from noiseless.examples.blocks import Batch
from noiseless.examples.trees import mapped
from noiseless.objective import layout
from noiseless.objective.space import ParameterSpace
from noiseless.objective.usercode import nodes

if TYPE_CHECKING:
    from noiseless.objective.gradients import BlockLoss

EXAMPLES = 8
"""most examples of the comparison"""
TOLERANCE = 1e-2
"""largest difference of losses and of gradients in L2, as a share; the errors that are looked for are larger"""
NOISE = 100.0
"""a difference also has to be this many times that of a change of the parameters in their last bits"""
_REENTRANT = "CheckpointFunctionBackward"
"""torch's node of a checkpoint whose backward puts gradients into `.grad` instead of passing them on"""
_known: WeakKeyDictionary[nn.Module, dict[Hashable, bool]] = WeakKeyDictionary()
"""module -> what was compared -> whether the forward and the loss leave their arguments as they are"""


class Computed(NamedTuple):
    """Loss and gradient of some examples."""

    loss: float
    gradient: Tensor
    """float64 `[P]`"""
    reentrant: bool = False
    """whether the forward uses reentrant checkpointing"""

    def apart(self, other: Computed) -> tuple[float, float]:
        """Difference of the losses, and of the gradients in L2."""
        return abs(self.loss - other.loss), float((self.gradient - other.gradient).norm())


def check_once(loss: BlockLoss, examples: Callable[[int], Batch]) -> bool:
    """Compares loss and gradient in two ways, once for a module, loss and mode. What raises an error is not compared.

    Args:
        loss: of the objective's blocks.
        examples: (count) -> a batch of one block of at most so many examples.

    Returns:
        Whether the forward and the loss leave their arguments as they are; False if that is not known.

    Raises:
        ValueError: if they differ by more than rounding; names the parameters.
    """
    known = _known.setdefault(loss.module, {})
    key = (*loss.key(), loss.norm.norm_block, loss.autocast)
    if key not in known:
        try:
            problem, unwritten = _compared(loss, examples(min(EXAMPLES, loss.norm.norm_block)))
        except Exception:  # what so few examples cannot be asked, or the sweep meets as well and reports
            problem, unwritten = None, False
        if problem:
            raise ValueError(problem)
        known[key] = unwritten
    return known[key]


def _compared(loss: BlockLoss, batch: Batch) -> tuple[str | None, bool]:
    """A sentence about the difference, or None; and whether the forward and the loss leave their arguments alone."""
    copied = _copy(batch)
    plain = _as_it_stands(loss, copied)
    unwritten = not any(t._version for t in tree_leaves((copied.inputs, copied.target)))
    return _problem(loss, batch, plain), unwritten


def _problem(loss: BlockLoss, batch: Batch, plain: Computed) -> str | None:
    if plain.reentrant:
        return (
            "the forward uses activation checkpointing with use_reentrant=True, in which torch.autograd.grad misses the"
            " gradients of the parameters: call torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )
    found = _in_sweep(loss, batch)
    if _close(found, plain) or not (math.isfinite(plain.loss) and bool(plain.gradient.isfinite().all())):
        return None
    again = _as_it_stands(loss, _copy(batch))
    if not _close(again, plain):
        return (
            f"two forwards of the same examples give losses of {plain.loss:.6g} and {again.loss:.6g}, so the objective"
            " is no function of the parameters: the forward draws random numbers that are not torch's, or keeps a"
            " state. Use torch's random numbers, which are keyed here, and keep no state; or switch this check off with"
            " Execution(check=False)"
        )
    with layout.contiguous(loss.module):
        contiguous = _in_sweep(loss, batch)
    if _close(contiguous, plain):  # a forward that reads its input's strides
        layout.keep_contiguous(loss.module)
        return None
    theta = loss.space.theta.detach()
    signs = torch.arange(len(theta), device=theta.device) % 2 * 2 - 1
    with loss.space.at(theta * (1 + 4 * torch.finfo(theta.dtype).eps * signs)):
        rounding = _as_it_stands(loss, _copy(batch)).apart(plain)
    if _close(found, plain, rounding):
        return None
    parts, expected = loss.space.split(found.gradient), loss.space.split(plain.gradient)
    least = TOLERANCE * float(plain.gradient.norm())
    names = [name for name in parts if float((parts[name] - expected[name]).norm()) > least]
    return (
        f"the loss of a few examples is {found.loss:.6g} in a sweep, but {plain.loss:.6g} by the module as it stands;"
        f" gradients differ in {', '.join(names[:5]) or 'no parameter'}{', ...' if len(names) > 5 else ''}. Does a"
        " layer compute batch norm in its own way? Put it in eval(), or switch this check off with"
        " Execution(check=False)"
    )


def _close(one: Computed, other: Computed, rounding: tuple[float, float] = (0.0, 0.0)) -> bool:
    """Whether the differences are below the tolerance, or below what rounding may make of it."""
    sizes = abs(other.loss), float(other.gradient.norm())
    limits = [max(TOLERANCE * size, NOISE * noise) for size, noise in zip(sizes, rounding, strict=True)]
    return all(difference <= limit for difference, limit in zip(one.apart(other), limits, strict=True))


def _copy(batch: Batch) -> Batch:
    """A copy into which a forward may write."""
    inputs, target = mapped(torch.clone, (batch.inputs, batch.target))
    return replace(batch, inputs=inputs, target=target)


def _computed(space: ParameterSpace, loss: Tensor) -> Computed:
    return Computed(loss.item(), space.gradient(loss).double())


def _in_sweep(loss: BlockLoss, batch: Batch) -> Computed:
    """Loss and gradient as a sweep computes them."""
    with loss.in_sweep():
        return _computed(loss.space, loss.value(_copy(batch), 0)[0])


def _as_it_stands(loss: BlockLoss, batch: Batch) -> Computed:
    """Loss and gradient by the module as it stands; the buffers that its forward writes are restored."""
    buffers = {name: buffer.clone() for name, buffer in loss.module.named_buffers()}
    try:
        with torch.enable_grad():
            value = loss.as_it_stands(batch)
            if any(node.name() == _REENTRANT for node in nodes(value)):
                return Computed(value.item(), loss.space.theta.new_zeros(0), reentrant=True)
            return _computed(loss.space, value)
    finally:
        with torch.no_grad():
            for name, buffer in loss.module.named_buffers():
                if name in buffers and not torch.equal(buffer, buffers[name]):
                    buffer.copy_(buffers[name])
