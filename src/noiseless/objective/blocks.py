"""The partition of the data into blocks: the unit on which batch normalisation and the penalty are defined.

The partition is part of the objective's definition. It depends on the number of examples and the block's size, never on
workers, memory or speed. No example is dropped: the last block may be short, and is weighted by its count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Examples(Protocol):
    """A data set whose examples are a pure function of their numbers."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> tuple[Tensor, ...]:
        """Returns the examples with these numbers.

        Args:
            index: example numbers, int64 of any shape `[...]`.

        Returns:
            The model's inputs, then the target: each `[..., *shape of one example]`.
        """
        ...


class TensorExamples:
    """Plain tensors as examples: `(input, ..., target)`, all of one length.

    Raises:
        ValueError: for fewer than two tensors, unequal lengths, empty or non-finite data.
    """

    def __init__(self, tensors: Sequence[Tensor]):
        listed = isinstance(tensors, (tuple, list)) and all(isinstance(t, Tensor) for t in tensors)
        if not listed or len(tensors) < 2:
            got = f"{len(tensors)}" if listed else f"{type(tensors).__name__}"
            raise ValueError(f"data must be the model's inputs and a target, a tuple of at least 2 tensors, not {got}")
        lengths = [len(t) if t.ndim else 0 for t in tensors]
        if len(set(lengths)) > 1:
            raise ValueError(f"inputs and targets must have one length, but they have {lengths}")
        if lengths[0] == 0:
            raise ValueError("the data set is empty")
        for position, tensor in enumerate(tensors):
            if tensor.is_floating_point() and not tensor.isfinite().all():
                first = (
                    int((~tensor.isfinite()).flatten(1).any(1).nonzero()[0])
                    if tensor.ndim > 1
                    else int((~tensor.isfinite()).nonzero()[0])
                )
                raise ValueError(f"tensor {position} of the data holds NaN or infinity, first in example {first}")
        self.tensors = tuple(tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def take(self, index: Tensor) -> tuple[Tensor, ...]:
        """The examples with these numbers: tensors `[*index.shape, ...]`."""
        return tuple(t[index.to(t.device)] for t in self.tensors)


@dataclass(frozen=True)
class Chunk:
    """Blocks of equal size that are computed at once."""

    first: int
    """number of the first block"""
    index: Tensor
    """example numbers, int64 `[K blocks, n examples]`"""


@dataclass(frozen=True)
class Batch:
    """The examples of one chunk: K blocks of n examples."""

    first: int
    """number of the first block"""
    inputs: tuple[Tensor, ...]
    """each `[K, n, ...]`"""
    target: Tensor
    """`[K, n, ...]`"""
    seed: int = 0
    """seed of the random numbers that the module draws; they are keyed by (seed, step, block number)"""
    step: int = 0
    """step of these random numbers"""
    regular: bool = True
    """whether it has the shape of most chunks of its sweep; code is compiled only for those"""

    def __len__(self) -> int:
        return len(self.target)

    def block(self, k: int) -> Batch:
        """A batch of block k alone."""
        inputs, target = tuple(x[k : k + 1] for x in self.inputs), self.target[k : k + 1]
        return replace(self, first=self.first + k, inputs=inputs, target=target)

    @property
    def counts(self) -> Tensor:
        """Number of examples in each block, float64 `[K]`."""
        return torch.full((len(self),), self.target.shape[1], dtype=torch.float64, device=self.target.device)


@dataclass(frozen=True)
class Blocks:
    """A fixed partition of `count` examples into blocks of `size`; the last one may be short."""

    count: int
    """number of examples"""
    size: int
    """number of examples in a block"""
    order: Tensor | None = None
    """example numbers in the order in which they are cut into blocks, int64 `[count]`; None: 0 ... count - 1"""

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def sizes(self) -> list[int]:
        """Number of examples in each block."""
        return [min(self.size, self.count - start) for start in range(0, self.count, self.size)]

    def head(self, count: int) -> Chunk:
        """The first examples, at most `count` and no more than a block, as one short block."""
        first = torch.arange(self.count) if self.order is None else self.order
        return Chunk(0, first[: min(count, self.size)].reshape(1, -1))

    def chunks(self, chunk: int) -> list[Chunk]:
        """The blocks in their order, up to `chunk` of them in each chunk; a short last block is a chunk by itself.

        Returns:
            Chunks that together hold each example once.
        """
        order = torch.arange(self.count) if self.order is None else self.order
        full_blocks = self.count // self.size
        chunks = []
        for first in range(0, full_blocks, chunk):
            last = min(first + chunk, full_blocks)
            chunks.append(Chunk(first, order[first * self.size : last * self.size].reshape(last - first, self.size)))
        if full_blocks * self.size < self.count:
            chunks.append(Chunk(full_blocks, order[full_blocks * self.size :].reshape(1, -1)))
        return chunks


def check_size(name: str, size: int, most: int, of: str = "examples") -> None:
    """Raises unless a size is a whole number between 1 and `most`.

    Raises:
        ValueError: naming the setting, its value and what to choose.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {size!r}")
    if size > most:
        raise ValueError(f"{name} {size} is larger than the {most} {of}: choose at most {most}")


def check_norm_block(norm_block: int, block: int) -> None:
    """Raises unless the size of norm blocks divides that of blocks.

    Raises:
        ValueError: naming both sizes.
    """
    check_size("norm_block", norm_block, block, "examples of a block")
    if block % norm_block:
        raise ValueError(f"norm_block {norm_block} must divide block {block}")
