"""A clip of each block's gradient: an objective that wraps another. Step 5 of a training step, after the penalty."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from noiseless.documented import documented
from noiseless.examples.blocks import Batch
from noiseless.objective.base import Objective, Wrapper, square_norms
from noiseless.objective.contribution import ByBlock, Contribution
from noiseless.objective.risk import Blockwise


@documented
@dataclass(eq=False, repr=False)
class BlockClip(Wrapper, Blockwise):
    """The direction `(1 / N) sum_b n_b g_b min(1, norm / ||g_b||)`, with the value of the wrapped objective.

    g_b is the gradient of block b in the wrapped objective, penalty included, and n_b its number of examples. The
    direction is not the gradient of the value, so the objective is not exact; Hessian products are those of the value.

    Raises:
        ValueError: if the norm is not positive.
    """

    objective: Blockwise
    """a risk, or a risk with a penalty"""
    norm: float
    """largest L2 norm of a block's gradient"""

    def __post_init__(self) -> None:
        if not self.norm > 0:
            raise ValueError(f"the block clip must be a positive norm, not {self.norm}")
        self.space, self.visits = self.objective.space, self.objective.visits

    @property
    def wrapped(self) -> Objective:
        """The objective whose blocks are clipped."""
        return self.objective

    def over(self, risk: Objective) -> Objective:
        """A copy of this clip around another risk."""
        return replace(self, objective=self.objective.over(risk))  # type: ignore[arg-type]

    @property
    def exact(self) -> bool:
        """False: the direction is not the gradient of the value."""
        return False

    def by_block(self) -> ByBlock:
        """The wrapped objective's contributions, clipped."""
        inner = self.objective.by_block()

        def contribution(theta: Tensor, batch: Batch) -> Contribution:
            part = inner(theta, batch)
            lengths = square_norms(part.direction)[:, None].sqrt()
            scale = (self.norm / lengths.clamp(min=self.norm)).to(part.direction.dtype)
            return replace(part, direction=part.direction * scale)

        return contribution
