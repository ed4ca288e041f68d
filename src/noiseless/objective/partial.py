"""What a sweep has summed so far: it can be merged with another worker's, or written down and taken up again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.objective.exactsum import ExactSum

SCALARS = ("loss", "hits", "penalty", "square_norm")
"""a block's numbers, each a sum over its examples, but the last"""


@dataclass
class Partial:
    """Sums over the chunks that are done.

    Each block's scalars have a place of their own, so adding two partial sums of different chunks adds zeros to them.
    """

    vector: ExactSum
    """of the blocks' gradients (or products), by count, `[length]`"""
    statistics: ExactSum
    """of the norm blocks' reports, by weight, `[S]`, or of other vectors beside the first"""
    scalars: Tensor
    """float64 `[rows, blocks]` on the CPU, the rows as in `SCALARS` or others; 0 where a block is not done"""
    done: Tensor
    """uint8 `[chunks]` on the CPU: 1 for a chunk that is summed"""

    @staticmethod
    def empty(
        length: int,
        statistics: int,
        blocks: int,
        chunks: int,
        device: torch.device,
        rows: int = len(SCALARS),
    ) -> Partial:
        """The sum of nothing."""
        return Partial(
            ExactSum(length, device),
            ExactSum(statistics, device),
            torch.zeros(rows, blocks, dtype=torch.float64),
            torch.zeros(chunks, dtype=torch.uint8),
        )

    @property
    def complete(self) -> bool:
        """Whether every chunk is done."""
        return bool(self.done.all())

    def overlaps(self, other: Partial) -> bool:
        """Whether a chunk is done in both: they must not be merged."""
        return bool((self.done & other.done).any())

    def sums(self) -> dict[str, ExactSum]:
        """The exact sums, by name."""
        return {"vector": self.vector, "statistics": self.statistics}

    def merge(self, other: Partial) -> None:
        """Adds what another has summed, over other chunks."""
        assert not self.overlaps(other)
        for mine, others in zip(self.sums().values(), other.sums().values(), strict=True):
            mine.merge(others)
        self.scalars += other.scalars
        self.done += other.done

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors, for a file."""
        found = {"scalars": self.scalars, "done": self.done}
        for name, part in self.sums().items():
            found |= {f"{name}.{key}": t for key, t in part.tensors().items()}
        return found

    def filled(self, tensors: dict[str, Tensor]) -> Partial | None:
        """The partial sum that `tensors` has described, if it is one of the same shape as this one.

        Returns:
            It, on this one's device; None where it belongs to another sweep.
        """
        parts = {}
        for name, like in self.sums().items():
            mine = {k.partition(".")[2]: t for k, t in tensors.items() if k.startswith(f"{name}.")}
            made = like.filled(mine)
            if made is None:
                return None
            parts[name] = made
        scalars, done = tensors.get("scalars"), tensors.get("done")
        if scalars is None or done is None or scalars.shape != self.scalars.shape or done.shape != self.done.shape:
            return None
        return Partial(**parts, scalars=scalars, done=done)
