"""Which examples a sweep covers, in which order and view. Step 1 of a training step: `risk.at(selection)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from noiseless.documented import documented
from noiseless.examples.blocks import Batch, Blocks, Chunk, Examples, check_size
from noiseless.examples.dataset import DatasetExamples, examples_of
from noiseless.examples.trees import mapped, parted


@documented
@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """The examples of a sweep, in the order in which they are cut into blocks.

    Raises:
        ValueError: if it holds no example.
    """

    examples: Examples
    """the data set, in the view of this step (with its augmentation)"""
    order: Tensor | None = None
    """example numbers, int64 `[n]`; None: all examples, in the order of the data set"""
    examples_per_pass: int | None = None
    """number of examples that make a pass; None: those of the sweep. Differs where the sweep covers a part, or a
    multiple, of the data set"""
    first: int = 0
    """number of the sweep's first block; above 0 where the sweep covers a later part of the data set"""
    before: int = 0
    """number of examples of other parts that are already in batch norm's running averages"""
    seed: int = 0
    """seed of the random numbers that the module draws (dropout); they are keyed by (seed, step, block number)"""
    step: int | None = None
    """step of these random numbers; None: that of `take_step`, and 0 outside a step"""
    lr: float | None = None
    """learning rate of the step, for penalties that have none of their own; None: no step has given one"""

    def __post_init__(self) -> None:
        if not len(self):
            raise ValueError("the order is empty: a sweep needs at least one example")

    def __repr__(self) -> str:
        examples = f"{len(self)} of {len(self.examples)} examples"
        return f"{type(self).__name__}({examples}, seed={self.seed}, step={self.step})"

    @staticmethod
    def of(data: Any) -> Selection:
        """All examples of a data set, in its order.

        Args:
            data: tensors, an `Examples`, or a data set, see `examples_of`; or a selection, which is returned as it is.

        Returns:
            The selection.

        Raises:
            ValueError: for data that cannot be used, see `examples_of`.
        """
        return data if isinstance(data, Selection) else Selection(examples_of(data))

    def __len__(self) -> int:
        return len(self.examples) if self.order is None else len(self.order)

    @property
    def numbers(self) -> Tensor:
        """The example numbers in their order, int64 `[n]`."""
        return torch.arange(len(self.examples)) if self.order is None else self.order

    def batch(self, chunk: Chunk, device: torch.device, regular: bool, views: bool = False) -> Batch:
        """The examples of a chunk as a batch.

        Args:
            chunk: of the partition into blocks.
            device: to which their tensors are moved.
            regular: see `Batch.regular`.
            views: whether tensors may be views of the data set, because nothing is written into them.

        Returns:
            The batch.
        """

        def moved(t: Tensor) -> Tensor:
            there = t.to(device, non_blocking=True)  # to a GPU: the copy is queued, and the sweep goes on
            return there.clone() if there is t and t._is_view() and not views else there

        inputs, target = mapped(moved, parted(self.examples.take(chunk.index)))
        return Batch(self.first + chunk.first, chunk.index, inputs, target, self.seed, self.step or 0, regular)

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """Lets the loading processes of a data set, if there are any, load the examples of these chunks ahead."""
        if isinstance(self.examples, DatasetExamples):
            self.examples.expect([chunk.index for chunk in chunks])

    def head(self, count: int) -> Selection:
        """The first `count` examples, as a selection."""
        return replace(self, order=self.numbers[:count])

    def blocks(self, size: int | None) -> Blocks:
        """The partition of the selected examples into blocks.

        Args:
            size: examples in a block; None: all.

        Returns:
            The blocks.

        Raises:
            ValueError: if the size is larger than the selection; for a part of a pass, than the data set.
        """
        count = len(self)
        size = count if size is None else size
        part_of_pass = self.examples_per_pass is not None  # whose last block may be short
        check_size("block", size, max(count, len(self.examples)) if part_of_pass else count)
        return Blocks(count, size, self.order)

    def in_step(self, number: int, lr: float | None) -> Selection:
        """A copy with the number and learning rate of a step, where this one has none."""
        return replace(self, step=number if self.step is None else self.step, lr=lr if self.lr is None else self.lr)

    @property
    def share(self) -> float:
        """Number of examples in units of a pass; below 1 where they are a part of the data set."""
        return len(self) / (self.examples_per_pass or len(self))
