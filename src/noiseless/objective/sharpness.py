"""Sharpness-aware minimisation over the full batch: an objective that wraps another. Steps 2 to 5, done twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

from noiseless.documented import documented
from noiseless.objective.base import Evaluation, Objective, Wrapper, square_norms


@documented
@dataclass(eq=False, repr=False)
class SharpnessAware(Wrapper):
    """The direction `grad F(theta + rho g / ||g||)` with `g = grad F(theta)` (Foret et al., arXiv 2010.01412).

    Both gradients are full gradients of the wrapped objective F, penalty included, so this takes two evaluations.
    Value, hits, block norms and batch-norm statistics are those at theta. The direction is not the gradient of the
    reported value, so the objective is not exact; Hessian products are those of the value F.

    Raises:
        ValueError: if rho is not positive.
    """

    objective: Objective
    """F"""
    rho: float
    """length of the step ahead, an L2 norm in the parameter space"""
    evaluations = 2

    def __post_init__(self) -> None:
        if not 0 < self.rho < float("inf"):
            raise ValueError(
                f"the radius rho of sharpness-aware minimisation must be a positive number, not {self.rho}"
            )
        self.space = self.objective.space

    @property
    def wrapped(self) -> Objective:
        """F."""
        return self.objective

    def over(self, risk: Objective) -> Objective:
        """A copy with another risk inside F."""
        return replace(self, objective=self.objective.over(risk))

    @property
    def exact(self) -> bool:
        """False: the direction is not the gradient of the reported value."""
        return False

    def evaluate(self) -> Evaluation:
        """Value and direction from two evaluations of F; from one if the gradient is 0 or not finite."""
        here = self.objective.evaluate()
        length = square_norms(here.gradient).sqrt().item()
        if not 0 < length < float("inf"):
            return here
        theta = self.space.theta
        start = theta.detach().clone()
        try:
            theta.add_(here.gradient, alpha=self.rho / length)
            ahead = self.objective.evaluate()
        finally:  # also if the sweep is stopped: theta is restored
            self.space.theta.copy_(start)
        passes = here.passes + ahead.passes
        return replace(here, gradient=ahead.gradient, unused=ahead.unused, passes=passes)
