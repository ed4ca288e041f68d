"""The partition of the data into blocks: the unit on which batch normalisation and the penalty are defined.

The partition is part of the objective's definition. It depends on the number of examples and the block's size, never on
workers, memory or speed. No example is dropped: the last block may be short, and is weighted by its count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from noiseless.examples.trees import Inputs, Tree, first_tensor, mapped, named_tensors, parted


@runtime_checkable
class Examples(Protocol):
    """A data set whose examples are a pure function of their numbers."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Sequence[Tree] | Mapping[str, Tree]:
        """Returns the examples with these numbers.

        Args:
            index: example numbers, int64 of any shape `[...]`.

        Returns:
            The model's inputs, then the target: each a tensor `[..., *shape of one example]`, or a dict, tuple or list
            of such tensors. Or a mapping: the model's keyword arguments, and the target under one of the names
            `labels`, `label`, `target` and `targets`.
        """
        ...


class TensorExamples:
    """Plain tensors as examples, all of one length, as `Examples.take` returns them: `(input, ..., target)` or by name.

    Each input, and the target, may be a dict, tuple or list of tensors, which the module gets as one argument.

    Raises:
        ValueError: for fewer than two tensors, unequal lengths, empty or non-finite data.
    """

    def __init__(self, tensors: Sequence[Tree] | Mapping[str, Tree]):
        parted(tensors)
        named = named_tensors(tensors)
        lengths = [len(t) if t.ndim else 0 for _, t in named]
        if len(set(lengths)) > 1:
            raise ValueError(f"inputs and targets must have one length, but they have {lengths}")
        if not lengths or lengths[0] == 0:
            raise ValueError("the data set is empty")
        for place, tensor in named:
            if (first := first_not_finite(tensor)) is not None:
                raise ValueError(f"tensor {place} of the data holds NaN or infinity, first in example {first}")
        self.tensors: Sequence[Tree] | Mapping[str, Tree] = (
            dict(tensors) if isinstance(tensors, Mapping) else tuple(tensors)
        )
        self._count = lengths[0]

    def __len__(self) -> int:
        return self._count

    def take(self, index: Tensor) -> Sequence[Tree] | Mapping[str, Tree]:
        """The examples with these numbers: tensors `[*index.shape, ...]`, in the form in which they were given.

        Args:
            index: example numbers, int64 of any shape.

        Returns:
            Successive examples are views of the data, others are copies.
        """
        numbers = index.reshape(-1).cpu()
        first, count = int(numbers[0]) if len(numbers) else 0, len(numbers)
        if bool((numbers == torch.arange(first, first + count)).all()):
            part = slice(first, first + count)
            return mapped(lambda t: t[part].reshape(*index.shape, *t.shape[1:]), self.tensors)
        return mapped(lambda t: t[index.to(t.device, non_blocking=True)], self.tensors)


def first_not_finite(tensor: Tensor) -> int | None:
    """The number of the first row of a tensor that holds NaN or infinity; None if there is none."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.isfinite().all():
        return None
    bad = ~tensor.isfinite()
    return int((bad.flatten(1).any(1) if bad.ndim > 1 else bad.reshape(-1)).nonzero()[0])


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
    index: Tensor
    """example numbers, int64 `[K, n]`"""
    inputs: Inputs
    """the module's arguments, by position or name; each a tree of tensors `[K, n, ...]`"""
    target: Tree
    """tree of tensors `[K, n, ...]`"""
    seed: int = 0
    """seed of the random numbers that the module draws; they are keyed by (seed, step, block number)"""
    step: int = 0
    """step of these random numbers"""
    regular: bool = True
    """whether it has the shape of most chunks of its sweep; code is compiled only for those"""

    def __len__(self) -> int:
        return len(self.index)

    def block(self, k: int) -> Batch:
        """A batch of block k alone."""
        inputs, target = mapped(lambda t: t[k : k + 1], (self.inputs, self.target))
        return replace(self, first=self.first + k, index=self.index[k : k + 1], inputs=inputs, target=target)

    @property
    def size(self) -> int:
        """Number of examples in each block: n."""
        return self.index.shape[1]

    @property
    def counts(self) -> Tensor:
        """Number of examples in each block, float64 `[K]`."""
        device = first_tensor((self.target, self.inputs)).device
        return torch.full((len(self),), self.size, dtype=torch.float64, device=device)


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

    def is_regular(self, chunk: Chunk, blocks: int | None) -> bool:
        """Whether a chunk has the shape of most chunks.

        Args:
            chunk: some blocks.
            blocks: the usual number of blocks in a chunk; None: any.

        Returns:
            Whether its blocks are complete, and as many as usual.
        """
        usual = blocks is None or len(chunk.index) == min(blocks, max(1, self.count // self.size))
        return usual and chunk.index.shape[1] == self.size

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
