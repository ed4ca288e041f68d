"""The interface of objectives: value, gradient and Hessian products, computed in sweeps over the blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from noiseless.documented import documented
from noiseless.objective.space import ParameterSpace

SLICE = 2**17
"""elements that are converted to float64 at once, few enough to stay in the cache"""
FORWARD = 1 / 3
"""cost of a sweep of forwards alone, in passes: a backward takes two products where its forward takes one"""


@documented
@dataclass(frozen=True, repr=False)
class Evaluation:
    """The result of one sweep over the blocks. All sums are computed in float64."""

    loss: float
    """mean loss over the examples, without any penalty"""
    gradient: Tensor
    """gradient of the value, or the direction used in its place where the objective is not exact, `[P]`"""
    penalty: float
    """what the penalty adds to the loss; 0 without one"""
    hits: int | None
    """examples classified correctly; None where this is no classification"""
    block_square_norms: Tensor
    """squared L2 norm of each block's loss gradient (before penalty and clip), float64 `[blocks]`"""
    block_weights: Tensor
    """weight of each block in the mean: its number of examples, or the sum of the weights that the loss returns,
    float64 `[blocks]`"""
    weight: float
    """sum of the blocks' weights"""
    count: int
    """number of examples in the sweep"""
    passes: float
    """cost, in gradient evaluations over the whole data set"""
    statistics: Tensor
    """weighted sum of the batch-norm statistics, float64 `[S]`, for `Objective.accept`"""
    norm_blocks: int
    """number of norm blocks whose statistics are in that sum"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """mean of each metric over the examples"""
    unused: tuple[str, ...] = ()
    """names of the parameters on which the value does not depend: no block's loss reaches them"""

    @property
    def value(self) -> float:
        """The minimised value: loss + penalty."""
        return self.loss + self.penalty

    @property
    def accuracy(self) -> float | None:
        """Share of examples that are classified correctly; None where this is no classification."""
        return None if self.hits is None else self.hits / self.count

    def __repr__(self) -> str:
        numbers = {"loss": self.loss, "penalty": self.penalty or None, "accuracy": self.accuracy, **self.metrics}
        shown = [f"{name}={value:.6g}" for name, value in numbers.items() if value is not None]
        sizes = f"gradient=[{len(self.gradient)}], count={self.count}, passes={self.passes:.4g}"
        return f"{type(self).__name__}({', '.join([*shown, sizes])})"


@documented
@dataclass(frozen=True)
class Measurement:
    """The value of an objective without its gradient. All sums are computed in float64."""

    loss: float
    """mean loss over the examples, without any penalty"""
    penalty: float | None
    """what the penalty adds to the loss; None where the objective has none"""
    hits: int | None
    """examples classified correctly; None where this is no classification"""
    count: int
    """number of examples in the sweep"""
    passes: float
    """cost, in gradient evaluations over the whole data set"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """mean of each metric over the examples"""

    @property
    def value(self) -> float:
        """The minimised value: loss + penalty."""
        return self.loss + (self.penalty or 0.0)

    @property
    def accuracy(self) -> float | None:
        """Share of examples that are classified correctly; None where this is no classification."""
        return None if self.hits is None else self.hits / self.count


class Objective(ABC):
    """A deterministic function of the parameters, with its value, gradient and Hessian products.

    Attributes:
        space: its parameter space.
    """

    space: ParameterSpace

    @property
    @abstractmethod
    def wrapped(self) -> Objective | None:
        """The objective that this one wraps; None for an `EmpiricalRisk`."""

    @abstractmethod
    def over(self, risk: Objective) -> Objective:
        """A copy with the same wrappers around another innermost objective, `risk`."""

    def in_step(self, number: int, lr: float | None = None) -> Objective:
        """The objective as a step sees it: it gets the step's values where it leaves them open.

        Open are the step that keys the module's random numbers (dropout), where the selection has none, and the
        learning rate of a `GradientPenalty` that has none. `take_step` calls this.

        Args:
            number: number of the step.
            lr: learning rate of the step; None: there is none.

        Returns:
            A copy, with the same wrappers around the risk of the step.
        """
        inner: Objective = self
        while inner.wrapped is not None:
            inner = inner.wrapped
        return self if inner is self else self.over(inner.in_step(number, lr))

    @property
    def needs_rate(self) -> bool:
        """Whether it has a penalty whose learning rate is open, so that it can be evaluated only in a step."""
        return self.wrapped is not None and self.wrapped.needs_rate

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether `Evaluation.gradient` is the gradient of the value, up to rounding; a line search needs that."""

    @property
    @abstractmethod
    def passes(self) -> float:
        """Cost of one `evaluate`, in gradient evaluations over the whole data set."""

    @property
    @abstractmethod
    def sweeps(self) -> int:
        """Number of sweeps of one `evaluate`; each has its own exact sum."""

    @abstractmethod
    def evaluate(self) -> Evaluation:
        """Value and gradient at the module's current parameters. Changes nothing, not even batch-norm buffers."""

    def measure(self) -> Measurement:
        """The value at the module's current parameters, without the gradient where that is cheaper."""
        done = self.evaluate()
        return Measurement(done.loss, done.penalty, done.hits, done.count, done.passes, done.metrics)

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
        """Cost of `hvp` for that many vectors, in gradient evaluations over the whole data set.

        A reverse-mode derivative costs about twice the function that it differentiates.

        Args:
            vectors: K.

        Returns:
            Passes.
        """

    @abstractmethod
    def accept(self, evaluation: Evaluation) -> None:
        """Writes an evaluation's batch-norm statistics into the module's buffers."""

    def __repr__(self) -> str:
        inner = [] if self.wrapped is None else [repr(self.wrapped)]
        return f"{type(self).__name__}({', '.join([*inner, *self._settings()])})"

    def _settings(self) -> list[str]:
        """The numbers and names in the fields of this objective that are no defaults, for `repr`."""
        this: Any = self
        every = fields(this) if is_dataclass(this) else ()
        values = {f.name: (getattr(self, f.name), f.default) for f in every}
        plain = {name: value for name, (value, default) in values.items() if value != default}
        return [f"{name}={value!r}" for name, value in plain.items() if isinstance(value, (bool, int, float, str))]

    def closure(self) -> Callable[[], Tensor]:
        """A closure for `torch.optim.Optimizer.step`: it evaluates, sets the parameters' `.grad`, returns the value.

        The random numbers of a module (dropout) are those of step 0; `in_step(number).closure()` has those of a step.

        Returns:
            The closure.
        """

        def closure() -> Tensor:
            evaluation = self.evaluate()
            self.space.set_gradient(evaluation.gradient, evaluation.unused)
            return torch.tensor(evaluation.value, dtype=torch.float64)

        return closure


class Wrapper(Objective):
    """An objective that has the value of the objective that it wraps, and another direction."""

    evaluations: int = 1
    """evaluations of the wrapped objective in one evaluation of this one"""

    @property
    @abstractmethod
    def wrapped(self) -> Objective:
        """The objective whose direction is changed."""

    @property
    def passes(self) -> float:
        """Passes of all evaluations of the wrapped objective."""
        return self.evaluations * self.wrapped.passes

    @property
    def sweeps(self) -> int:
        """Number of sweeps of all evaluations of the wrapped objective."""
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
        """Cost of the wrapped objective's products, in passes."""
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
    parts = [_square_sum(part) for part in vectors.split(SLICE)]
    return torch.stack(parts).sum() if len(parts) > 1 else parts[0]


def _square_sum(part: Tensor) -> Tensor:
    numbers = part.double()
    return (numbers.square() if numbers is part else numbers.mul_(numbers)).sum()
