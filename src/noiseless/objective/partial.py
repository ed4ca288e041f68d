"""The sums of a sweep that is under way: they can be merged with another worker's, or saved and continued later.

For each batch a sweep gets a `Report`: named vectors with their weights, which are added to exact sums, and named
scalars of each block, which are stored by block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.objective.exactsum import ExactSum


@dataclass(frozen=True)
class Report:
    """The terms that the K blocks of a batch add to the sums of a sweep."""

    vectors: Mapping[str, tuple[Tensor, Tensor]]
    """name -> (terms `[n, length]`, their weights float64, `[n]` or `[n, length]`)"""
    scalars: Mapping[str, Tensor]
    """name -> numbers of each block, float64 `[K]` or `[rows, K]`"""


@dataclass(frozen=True)
class Sums:
    """The result of a sweep."""

    vectors: Mapping[str, Tensor]
    """name -> the weighted sum of the reported vectors, float64 `[length]`, correctly rounded"""
    scalars: Mapping[str, Tensor]
    """name -> the blocks' numbers, float64 `[rows, blocks]` on the CPU"""


@dataclass
class Partial:
    """Sums over the chunks that are done.

    Each block has its own column of scalars, which is 0 until the block is done. So the scalars of two partial sums of
    different chunks can be added without rounding.
    """

    vectors: dict[str, ExactSum]
    """name -> weighted sum of the reported vectors"""
    scalars: Tensor
    """float64 `[rows, blocks]`, on the device of the vectors; 0 where a block is not done"""
    done: Tensor
    """uint8 `[chunks]` on the CPU: 1 for a chunk that is summed"""
    rows: Mapping[str, slice]
    """name -> its rows of `scalars`"""

    @staticmethod
    def empty(
        vectors: Mapping[str, int], scalars: Mapping[str, int], blocks: int, chunks: int, device: torch.device
    ) -> Partial:
        """A partial sum in which no chunk is done.

        Args:
            vectors: name -> length of the vectors that will be reported.
            scalars: name -> how many numbers each block reports under this name.
            blocks: number of blocks in the sweep.
            chunks: number of chunks in the sweep.
            device: of the sums.

        Returns:
            The partial sum.
        """
        rows, end = {}, 0
        for name, count in scalars.items():
            rows[name] = slice(end, end := end + count)
        return Partial(
            {name: ExactSum(length, device) for name, length in vectors.items()},
            torch.zeros(end, blocks, dtype=torch.float64, device=device),
            torch.zeros(chunks, dtype=torch.uint8),
            rows,
        )

    @property
    def device(self) -> torch.device:
        """Where its sums are."""
        return self.scalars.device

    @property
    def complete(self) -> bool:
        """Whether every chunk is done."""
        return bool(self.done.all())

    def sums(self) -> Sums:
        """The sums over the chunks that are done, each rounded once."""
        vectors = {name: summed.value() for name, summed in self.vectors.items()}
        scalars = self.scalars.cpu()
        return Sums(vectors, {name: scalars[rows] for name, rows in self.rows.items()})

    def add(self, chunk: int, first: int, report: Report) -> None:
        """Adds the terms of a chunk. On a GPU, nothing is read from it, so it is not waited for.

        Args:
            chunk: number of the chunk.
            first: number of its first block in the sweep.
            report: the terms of its blocks.
        """
        for name, (terms, weights) in report.vectors.items():
            self.vectors[name].add(terms, weights)
        if report.scalars:
            table = torch.cat([numbers.reshape(-1, numbers.shape[-1]) for numbers in report.scalars.values()])
            self.scalars[:, first : first + table.shape[1]] = table
        self.done[chunk] = 1

    def overlaps(self, other: Partial) -> bool:
        """Whether a chunk is done in both: they must not be merged."""
        return bool((self.done & other.done).any())

    def merge(self, other: Partial) -> None:
        """Adds the sums of another partial sum, over other chunks."""
        assert not self.overlaps(other)
        for name, summed in self.vectors.items():
            summed.merge(other.vectors[name])
        self.scalars += other.scalars
        self.done += other.done

    def tensors(self) -> dict[str, Tensor]:
        """The sums as named tensors, for a file."""
        named = {"scalars": self.scalars, "done": self.done}
        for name, summed in self.vectors.items():
            named |= {f"{name}.{key}": tensor for key, tensor in summed.tensors().items()}
        return named

    def filled(self, tensors: dict[str, Tensor]) -> Partial | None:
        """The partial sum that these tensors, as returned by the method `tensors`, hold.

        Returns:
            The partial sum, on this one's device; None if it has other shapes, so that it is of another sweep.
        """
        vectors = {}
        for name, like in self.vectors.items():
            summed = like.filled({k.partition(".")[2]: t for k, t in tensors.items() if k.startswith(f"{name}.")})
            if summed is None:
                return None
            vectors[name] = summed
        scalars, done = tensors.get("scalars"), tensors.get("done")
        if scalars is None or done is None or scalars.shape != self.scalars.shape or done.shape != self.done.shape:
            return None
        return Partial(vectors, scalars.to(self.scalars.device), done, self.rows)
