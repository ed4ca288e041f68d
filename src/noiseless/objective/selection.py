"""Which examples a sweep covers now, and how they are seen. Step 1 of a training step: `risk.at(selection)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noiseless.objective.blocks import Examples, TensorExamples


@dataclass(frozen=True, eq=False)
class Selection:
    """The examples of a sweep, in the order in which blocks are cut.

    Raises:
        ValueError: if it holds no example.
    """

    examples: Examples
    """the data set as it is seen now"""
    order: Tensor | None = None
    """example numbers, int64 `[n]`; None: all, as they stand"""
    whole: int | None = None
    """examples that make a pass, where the sweep covers a part (or a multiple) of the data set; None: the sweep's"""
    first: int = 0
    """number of the first block, where the sweep covers a part of the data set"""
    before: int = 0
    """examples of other parts that are already in batch norm's running averages"""
    seed: int = 0
    """keys the random numbers that the module draws (dropout), with `step` and the block's number"""
    step: int = 0
    """see `seed`"""

    def __post_init__(self) -> None:
        if not len(self):
            raise ValueError("the order is empty: a sweep needs at least one example")

    @staticmethod
    def of(data: Sequence[Tensor] | Examples | Selection) -> Selection:
        """All examples of a data set, as they stand.

        Args:
            data: tensors `(input, ..., target)`, an `Examples`, or a selection, which is returned as it is.

        Returns:
            The selection.

        Raises:
            ValueError: for tensors that are no data set: empty, not finite, or of unequal lengths.
        """
        if isinstance(data, Selection):
            return data
        if isinstance(data, Examples) and not hasattr(data, "__array__"):  # an array has a take, too
            return Selection(data)
        return Selection(TensorExamples(data))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.examples) if self.order is None else len(self.order)

    @property
    def numbers(self) -> Tensor:
        """The example numbers in their order, int64 `[n]`."""
        return torch.arange(len(self.examples)) if self.order is None else self.order

    def head(self, count: int) -> Selection:
        """Its first `count` examples."""
        return replace(self, order=self.numbers[:count])

    @property
    def share(self) -> float:
        """Share of a pass that a sweep over these examples is."""
        return len(self) / (self.whole or len(self))
