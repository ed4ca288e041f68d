"""Sharpness-aware minimisation over the full batch: an objective around another. Steps 2 to 5, asked twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

from noiseless.objective.base import Evaluation, Objective, Wrapper, square_norms


@dataclass(eq=False)
class SharpnessAware(Wrapper):
    """The direction `grad F(theta + rho g / ||g||)` with `g = grad F(theta)` (Foret et al., arXiv 2010.01412).

    g is the full gradient of the wrapped objective F, its penalty included, and so is the gradient at the point ahead:
    two evaluations. Value, hits, block norms and batch-norm statistics are those at theta. The direction is not the
    gradient of the reported value, so the objective is not exact; Hessian products are those of the value F.

    Raises:
        ValueError: if rho is not positive.
    """

    objective: Objective
    """F"""
    rho: float
    """length of the step ahead, in the norm of theta's space"""
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
        """The same, with another risk in F."""
        return replace(self, objective=self.objective.over(risk))

    @property
    def exact(self) -> bool:
        """False: see above."""
        return False

    def evaluate(self) -> Evaluation:
        """Two evaluations; one where the gradient is 0 or not finite, which gives no direction."""
        here = self.objective.evaluate()
        length = square_norms(here.gradient).sqrt().item()
        if not 0 < length < float("inf"):
            return here
        theta = self.space.theta
        kept = theta.detach().clone()
        try:
            theta.add_(here.gradient, alpha=self.rho / length)
            ahead = self.objective.evaluate()
        finally:  # also where it is told to stop: theta has no trace of it
            self.space.theta.copy_(kept)
        return replace(here, gradient=ahead.gradient, passes=here.passes + ahead.passes)
