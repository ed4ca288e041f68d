"""What every objective answers: value, gradient and Hessian products, from sweeps over the blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.objective.space import ParameterSpace

SLICE = 2**17
"""elements of a vector whose float64 copy stays in the cache"""
FORWARD = 1 / 3
"""passes of a sweep without backwards: a backward takes two products where its forward takes one"""


@dataclass(frozen=True)
class Evaluation:
    """What one sweep over the blocks returns. All sums are taken in float64."""

    loss: float
    """mean loss over the examples, without any penalty"""
    gradient: Tensor
    """the gradient (or, where the objective is not exact, the direction that stands for it), `[P]`"""
    penalty: float
    """what the penalty adds to the loss; 0 without one"""
    hits: int | None
    """examples classified correctly; None where this is no classification"""
    block_square_norms: Tensor
    """squared L2 norm of each block's loss gradient (before penalty and clip), float64 `[blocks]`"""
    block_counts: Tensor
    """examples in each block, float64 `[blocks]`"""
    count: int
    """examples in the sweep"""
    passes: float
    """what the sweep cost, in gradient evaluations over the whole data set"""
    statistics: Tensor
    """weighted sum of the batch-norm statistics, float64 `[S]`; `Objective.accept` takes it"""

    @property
    def value(self) -> float:
        """What is minimised: loss + penalty."""
        return self.loss + self.penalty


@dataclass(frozen=True)
class Measurement:
    """What a sweep returns that asks for the value alone. All sums are taken in float64."""

    loss: float
    """mean loss over the examples, without any penalty"""
    penalty: float | None
    """what the penalty adds to the loss; None where the objective has none"""
    hits: int | None
    """examples classified correctly; None where this is no classification"""
    count: int
    """examples in the sweep"""
    passes: float
    """what the sweep cost, in gradient evaluations over the whole data set"""

    @property
    def value(self) -> float:
        """What is minimised: loss + penalty."""
        return self.loss + (self.penalty or 0.0)


class Objective(ABC):
    """One deterministic function of the parameters, which everything else asks.

    Attributes:
        space: its parameter space.
    """

    space: ParameterSpace

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether the gradient is the gradient of the value, up to rounding. A line search needs that."""

    @abstractmethod
    def evaluate(self) -> Evaluation:
        """One sweep at the module's present parameters. It changes nothing, batch-norm buffers included."""

    def measure(self) -> Measurement:
        """The value at the module's present parameters, without its gradient where that is cheaper."""
        found = self.evaluate()
        return Measurement(found.loss, found.penalty, found.hits, found.count, found.passes)

    @abstractmethod
    def hvp(self, V: Tensor) -> Tensor:
        """Hessian-vector products of the value.

        Args:
            V: vectors `[K, P]`.

        Returns:
            `H V`, `[K, P]`.
        """

    @abstractmethod
    def hvp_passes(self, vectors: int) -> float:
        """What `hvp` of that many vectors costs, in gradient evaluations over the whole data set.

        A reverse derivative costs about twice what it differentiates.

        Args:
            vectors: K.

        Returns:
            Passes.
        """

    @abstractmethod
    def accept(self, evaluation: Evaluation) -> None:
        """Writes an evaluation's batch-norm statistics into the module's buffers."""

    def closure(self) -> Callable[[], Tensor]:
        """A closure for `torch.optim.Optimizer.step`: it evaluates, sets the parameters' `.grad`, returns the value."""

        def ask() -> Tensor:
            evaluation = self.evaluate()
            self.space.set_gradient(evaluation.gradient)
            return torch.tensor(evaluation.value, dtype=torch.float64)

        return ask


def check_vectors(V: Tensor, space: ParameterSpace) -> None:
    """Raises unless V is `[K, P]`.

    Raises:
        ValueError: naming both shapes.
    """
    if V.ndim != 2 or V.shape[1] != len(space):
        raise ValueError(f"V must have shape [K, {len(space)}] (K vectors of the space), not {list(V.shape)}")


def square_norms(vectors: Tensor) -> Tensor:
    """Squared L2 norms of vectors `[..., P]`, summed in float64: `[...]`."""
    if vectors.ndim > 1:
        return torch.stack([square_norms(v) for v in vectors])
    parts = [part.double().square().sum() for part in vectors.split(SLICE)]
    return torch.stack(parts).sum() if len(parts) > 1 else parts[0]


def clipped(gradients: Tensor, norm: float) -> Tensor:
    """Each of `[K, P]` scaled to the L2 norm where it is longer."""
    lengths = square_norms(gradients)[:, None].sqrt()
    return gradients * (norm / lengths.clamp(min=norm)).to(gradients.dtype)
