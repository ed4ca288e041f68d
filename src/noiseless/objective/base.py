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
    norm_blocks: int
    """norm blocks whose statistics are in that sum"""

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
    def wrapped(self) -> Objective | None:
        """The objective that this one changes; None for one that stands by itself, an `EmpiricalRisk`."""

    @abstractmethod
    def over(self, risk: Objective) -> Objective:
        """A copy in which the innermost objective is `risk`: what wraps it is kept."""

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether the gradient is the gradient of the value, up to rounding. A line search needs that."""

    @property
    @abstractmethod
    def passes(self) -> float:
        """Cost of one `evaluate`, in gradient evaluations over the whole data set."""

    @property
    @abstractmethod
    def sweeps(self) -> int:
        """Sweeps of one `evaluate`, each with an exact sum of its own."""

    @abstractmethod
    def evaluate(self) -> Evaluation:
        """One sweep at the module's present parameters. It changes nothing, batch-norm buffers included."""

    def measure(self) -> Measurement:
        """The value at the module's present parameters, without its gradient where that is cheaper."""
        evaluation = self.evaluate()
        return Measurement(evaluation.loss, evaluation.penalty, evaluation.hits, evaluation.count, evaluation.passes)

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


class Wrapper(Objective):
    """An objective with the value of another, whose direction it changes."""

    evaluations: int = 1
    """evaluations of the other objective in one of this"""

    @property
    @abstractmethod
    def wrapped(self) -> Objective:
        """The other objective."""

    @property
    def passes(self) -> float:
        """Those of the wrapped objective, for each of its evaluations."""
        return self.evaluations * self.wrapped.passes

    @property
    def sweeps(self) -> int:
        """Those of the wrapped objective, for each of its evaluations."""
        return self.evaluations * self.wrapped.sweeps

    def measure(self) -> Measurement:
        """The wrapped objective's value."""
        return self.wrapped.measure()

    def hvp(self, V: Tensor) -> Tensor:
        """Hessian products of the value, by the wrapped objective.

        Args:
            V: vectors `[K, P]`.

        Returns:
            `[K, P]`.
        """
        return self.wrapped.hvp(V)

    def hvp_passes(self, vectors: int) -> float:
        """What the wrapped objective's products cost."""
        return self.wrapped.hvp_passes(vectors)

    def accept(self, evaluation: Evaluation) -> None:
        """Writes the sweep's batch-norm statistics into the module's buffers."""
        self.wrapped.accept(evaluation)


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
