"""Regimes: the sequence of objectives that a run minimises. Step 1 of a training step.

A regime is a pure function of the step. The full batch is the constant sequence (up to augmentation), or goes round its
parts; stochastic training is the special case whose step holds one objective for each block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from noiseless import keyed
from noiseless.objective import EmpiricalRisk, Examples, Objective
from noiseless.objective.blocks import check_size

View = Callable[[int], Examples]
"""step -> the training examples as they are seen at that step"""
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
        """The risk over all examples, as they are seen at that step: what analyses ask.

        Args:
            step: from 0.
        """
        ...


@dataclass(frozen=True)
class FullBatch:
    """One objective a step: the mean over all examples. With parts, one over each of them in turn.

    The parts are fixed by the seed, so that K updates in a row, wherever they begin, have seen each example once:
    `optim.aggregate` makes of their gradients one over all examples.
    """

    risk: EmpiricalRisk
    view: View
    wrap: Wrap
    seed: int
    shuffle: bool = False
    """blocks are cut from a new order at each step"""
    drop_last: bool = False
    """a short last block is left out; with `shuffle` other examples at each step"""
    draws: int = 1
    """copies of each image that stay together: the view holds them one whole copy after the other"""
    parts: int = 1
    """K: updates of a step, each from one of as many parts of the images, of equal size but for one image"""
    by_update: bool = False
    """the learning rate moves within a step: update k of K, from 0, has the time step + k / K"""

    def objectives(self, step: int) -> Iterator[Objective]:
        """One objective for each part.

        Yields:
            The full batch, as it is seen at that step; or its parts, each in the order that the step has for all.
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
        """What the step minimises, but for penalties."""
        data = self.view(step)
        images = len(data) // self.draws
        if self.shuffle or self.drop_last or self.draws > 1:
            drawn = keyed.permutation(self.seed, "shuffle", step, images) if self.shuffle else torch.arange(images)
            order = _together(drawn, images, self.draws)
            order = _whole_blocks(order, self.risk.blocks.size) if self.drop_last else order
        else:
            order = None
        return self.risk.at(replace(self.risk.selection, examples=data, order=order, step=step))


@dataclass(frozen=True)
class Stochastic:
    """One objective for each block: a step is one pass over the data, with many updates."""

    risk: EmpiricalRisk
    """with exponential running statistics: an average over one update would be that of one block"""
    view: View
    wrap: Wrap
    seed: int
    shuffle: bool = True
    """blocks are cut from a new order at each step"""
    replacement: bool = False
    """examples are drawn, rather than shuffled"""
    drop_last: bool = False
    """a short last block is left out"""
    draws: int = 1
    """copies of each image that stay together: the view holds them one whole copy after the other"""
    by_update: bool = False
    """the learning rate moves at each update, see `FullBatch`"""

    def objectives(self, step: int) -> Iterator[Objective]:
        """One objective for each block.

        Yields:
            The blocks of the step, each an objective of its own.
        """
        data = self.view(step)
        images = len(data) // self.draws
        size = self.risk.blocks.size
        check_size("block", size, len(data))
        if self.replacement:
            drawn = keyed.integers(self.seed, "replacement", step, torch.arange(images), images)
        elif self.shuffle:
            drawn = keyed.permutation(self.seed, "shuffle", step, images)
        else:
            drawn = torch.arange(images)
        order = _together(drawn, images, self.draws)
        order = _whole_blocks(order, size) if self.drop_last else order
        updates = -(-len(order) // size)
        selection = replace(self.risk.selection, examples=data, examples_per_pass=images, step=step)
        for number, start in enumerate(range(0, len(order), size)):
            risk = self.risk.at(replace(selection, order=order[start : start + size], first=number))
            yield self.wrap(risk, step + number / updates if self.by_update else step)

    def risk_at(self, step: int) -> EmpiricalRisk:
        """The mean over all examples, in blocks as they stand: each example once."""
        data = self.view(step)
        images = len(data) // self.draws
        order = _together(torch.arange(images), images, self.draws) if self.draws > 1 else None
        return self.risk.at(replace(self.risk.selection, examples=data, order=order, step=step))


def part_sizes(images: int, parts: int) -> list[int]:
    """The parts of a full batch.

    Args:
        images: in all.
        parts: how many.

    Returns:
        Images in each part.

    Raises:
        ValueError: if a part would have none.
    """
    check_size("parts", parts, images, "images")
    return [len(range(part, images, parts)) for part in range(parts)]


def _together(drawn: Tensor, images: int, draws: int) -> Tensor:
    """Example numbers `[n * draws]` of images `[n]`: all copies of one, then all of the next."""
    return (drawn[:, None] + images * torch.arange(draws)).flatten()


def _whole_blocks(order: Tensor, block: int) -> Tensor:
    """The order without its short last block."""
    return order[: len(order) // block * block]


@dataclass(frozen=True)
class Switch:
    """One regime up to a step, another from it on."""

    first: Regime
    then: Regime
    at: int
    """first step of the second regime"""

    def objectives(self, step: int) -> Iterator[Objective]:
        """Those of the regime in force at that step."""
        return self._in_force(step).objectives(step)

    def risk_at(self, step: int) -> EmpiricalRisk:
        """That of the regime in force at that step."""
        return self._in_force(step).risk_at(step)

    def _in_force(self, step: int) -> Regime:
        return self.first if step < self.at else self.then
