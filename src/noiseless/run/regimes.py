"""Regimes: the sequence of objectives that a run minimises. Step 1 of a training step.

A regime is a pure function of the step. With the full batch the sequence is constant (up to augmentation) or goes
through parts of the examples in turn; stochastic training has one objective for each block in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from noiseless import keyed
from noiseless.examples.blocks import check_size
from noiseless.objective import EmpiricalRisk, Examples, Objective

View = Callable[[int], Examples]
"""step -> the training examples as that step sees them"""
Wrap = Callable[[EmpiricalRisk, float], Objective]
"""(risk, time in steps) -> what is minimised: the risk itself, or with a penalty at the learning rate of that time"""


class Regime(Protocol):
    """The objectives of each step."""

    def objectives(self, step: int) -> Iterator[Objective]:
        """The objectives to minimise in turn, one update each.

        Args:
            step: from 0.
        """
        ...

    def risk_at(self, step: int) -> EmpiricalRisk:
        """The risk over all examples as that step sees them, for analyses.

        Args:
            step: from 0.
        """
        ...


@dataclass(frozen=True)
class FullBatch:
    """One objective in each step: the mean over all examples. With K parts, K objectives: one for each part.

    The seed fixes the parts, so any K successive updates see each example once, and `optim.aggregate` combines their
    gradients into one over all examples.
    """

    risk: EmpiricalRisk
    view: View
    wrap: Wrap
    seed: int
    shuffle: bool = False
    """cut blocks from a new order at each step"""
    drop_last: bool = False
    """leave out a short last block; with `shuffle` it has other examples at each step"""
    draws: int = 1
    """copies of each image that stay together in a block; the view has the first copy of all images, then the second"""
    parts: int = 1
    """K: number of parts of the images, with one update each in a step; their sizes differ by at most one image"""
    by_update: bool = False
    """change the learning rate within a step: update k of K, k from 0, has the time step + k / K"""

    def objectives(self, step: int) -> Iterator[Objective]:
        """The objectives of a step, one for each part.

        Yields:
            The mean over all examples as the step sees them; or over each part, in the step's order of examples.
        """
        full = self.risk_at(step)
        if self.parts == 1:
            yield self.wrap(full, step)
            return
        selection = full.selection
        order = selection.numbers
        images = len(order) // self.draws
        part_of = keyed.permutation(self.seed, "parts", 0, images).remainder(self.parts)[order % images]
        selection = replace(selection, examples_per_pass=selection.examples_per_pass or len(order))
        for part in range(self.parts):
            selection = replace(selection, order=order[part_of == part])
            risk = full.at(selection)
            yield self.wrap(risk, step + part / self.parts if self.by_update else step)
            selection = replace(
                selection, first=selection.first + len(risk.blocks), before=selection.before + len(selection)
            )

    def risk_at(self, step: int) -> EmpiricalRisk:
        """What the step minimises, without penalties."""
        data = self.view(step)
        images = len(data) // self.draws
        if self.shuffle or self.drop_last or self.draws > 1:
            numbers = keyed.permutation(self.seed, "shuffle", step, images) if self.shuffle else torch.arange(images)
            order = _together(numbers, images, self.draws)
            order = _whole_blocks(order, self.risk.blocks.size) if self.drop_last else order
        else:
            order = None
        return self.risk.at(replace(self.risk.selection, examples=data, order=order, step=step))


@dataclass(frozen=True)
class Stochastic:
    """One objective for each block: a step is one pass over the data, with many updates."""

    risk: EmpiricalRisk
    """with exponential running statistics, because an average over one update would be that of one block"""
    view: View
    wrap: Wrap
    seed: int
    shuffle: bool = True
    """cut blocks from a new order at each step"""
    replacement: bool = False
    """draw examples with replacement instead of shuffling them"""
    drop_last: bool = False
    """leave out a short last block"""
    draws: int = 1
    """copies of each image that stay together in a block, see `FullBatch`"""
    by_update: bool = False
    """change the learning rate at each update, see `FullBatch`"""
    unit: int = 1
    """number of successive images that are drawn together; a rest of fewer images comes last in each pass"""

    def objectives(self, step: int) -> Iterator[Objective]:
        """The objectives of a step, one for each block.

        Yields:
            The mean over the block's examples.
        """
        data = self.view(step)
        images = len(data) // self.draws
        size = self.risk.blocks.size
        check_size("block", size, len(data))
        order = _together(self._drawn(step, images), images, self.draws)
        order = _whole_blocks(order, size) if self.drop_last else order
        updates = -(-len(order) // size)
        selection = replace(self.risk.selection, examples=data, examples_per_pass=images, step=step)
        for number, start in enumerate(range(0, len(order), size)):
            risk = self.risk.at(replace(selection, order=order[start : start + size], first=number))
            yield self.wrap(risk, step + number / updates if self.by_update else step)

    def _drawn(self, step: int, images: int) -> Tensor:
        """The numbers of a step's images, `[images]`, in units of `unit` successive ones."""
        units = images // self.unit
        if self.replacement:
            numbers = keyed.integers(self.seed, "replacement", step, torch.arange(units), units)
        elif self.shuffle:
            numbers = keyed.permutation(self.seed, "shuffle", step, units)
        else:
            return torch.arange(images)
        drawn = (numbers[:, None] * self.unit + torch.arange(self.unit)).flatten()
        return torch.cat([drawn, torch.arange(units * self.unit, images)])

    def risk_at(self, step: int) -> EmpiricalRisk:
        """The risk over all examples, each once, in the order of the data set."""
        data = self.view(step)
        images = len(data) // self.draws
        order = _together(torch.arange(images), images, self.draws) if self.draws > 1 else None
        return self.risk.at(replace(self.risk.selection, examples=data, order=order, step=step))


def part_sizes(images: int, parts: int) -> list[int]:
    """The sizes of a full batch's parts.

    Args:
        images: number of images in the full batch.
        parts: number of parts.

    Returns:
        Number of images in each part.

    Raises:
        ValueError: if a part would be empty.
    """
    check_size("parts", parts, images, "images")
    return [len(range(part, images, parts)) for part in range(parts)]


def _together(numbers: Tensor, images: int, draws: int) -> Tensor:
    """Example numbers `[n * draws]` for image numbers `[n]`: all copies of the first image, then of the second."""
    return (numbers[:, None] + images * torch.arange(draws)).flatten()


def _whole_blocks(order: Tensor, block: int) -> Tensor:
    """The order without its short last block."""
    return order[: len(order) // block * block]


@dataclass(frozen=True)
class Switch:
    """One regime before a step, another from that step on."""

    first: Regime
    then: Regime
    at: int
    """first step of the second regime"""

    def objectives(self, step: int) -> Iterator[Objective]:
        """The objectives of the regime in force at that step."""
        return self._in_force(step).objectives(step)

    def risk_at(self, step: int) -> EmpiricalRisk:
        """The risk of the regime in force at that step."""
        return self._in_force(step).risk_at(step)

    def _in_force(self, step: int) -> Regime:
        return self.first if step < self.at else self.then
