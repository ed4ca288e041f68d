"""Flows: an optimizer in continuous time. The stable flow leaves oscillations out; `centralflow` has their mean effect.

Time is in steps of the optimizer, so a flow after time t stands beside the weights after t steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noiseless.analysis.flowrule import FlowRule
from noiseless.objective.base import Evaluation, Objective

TOLERANCE = 1e-2
"""largest error of a substep of a stable flow, as a share of the length of an optimizer's step"""
MOST = 300
"""largest number of gradients of a stable flow within a step of the optimizer"""
_RELATIVE = 1e-13
"""relative tolerance of the integrator, which counts for nothing beside the absolute one"""


class FlowStoppedError(ValueError):
    """A flow cannot go on from its state."""


@dataclass(frozen=True)
class FlowState:
    """Where a flow is."""

    theta: Tensor
    """parameters, float64 `[P]`"""
    nu: Tensor
    """second moment of the optimizer, float64: `[0]`, `[1]` or `[P]`, see `FlowRule`"""
    time: float = 0.0
    """in steps"""
    substep: float = 0.25
    """size of the next substep, of a stable flow"""
    vectors: Tensor | None = None
    """eigenvectors that a central flow follows, `[m, P]`; None: they are not known yet"""
    values: Tensor | None = None
    """their eigenvalues, float64 `[m]`"""

    def tensors(self) -> dict[str, Tensor | float | None]:
        """The fields by name, for a checkpoint."""
        return dict(vars(self))


@dataclass(frozen=True)
class FlowPoint:
    """What a flow predicts at one time."""

    loss: float
    """L at the flow's parameters"""
    mean_loss: float
    """predicted mean of L over the oscillation"""
    square: float
    """squared norm of the gradient, with weight decay"""
    mean_square: float
    """predicted mean of it over the oscillation"""
    eigenvalues: list[float] = field(default_factory=list)
    """largest eigenvalues of `P^-1 H` that the flow follows, in descending order; at 2 is the edge of stability"""
    oscillation: list[float] = field(default_factory=list)
    """eigenvalues of X with Sigma = W X W^T: what each critical direction adds to the mean loss"""
    variance: float = 0.0
    """trace of Sigma: mean squared distance of the weights from their mean"""


class Ledger:
    """What a flow has spent."""

    def __init__(self) -> None:
        self.passes = 0.0


class Evaluator:
    """Evaluates an objective at a flow's parameters, and keeps the last evaluation.

    Args:
        objective: L; its module's parameters are as before after each call.
        rule: the optimizer.
        ledger: counts passes.
    """

    def __init__(self, objective: Objective, rule: FlowRule, ledger: Ledger):
        self.objective, self.rule, self.ledger = objective, rule, ledger
        self._last: tuple[Tensor, Evaluation, Tensor] | None = None

    def at(self, theta: Tensor) -> tuple[Evaluation, Tensor]:
        """Loss and gradient.

        Args:
            theta: float64 `[P]`.

        Returns:
            The evaluation of L, and the gradient with weight decay, float64 `[P]`.

        Raises:
            FlowStoppedError: if the loss or its gradient is not finite.
        """
        if self._last is None or not torch.equal(self._last[0], theta):
            space = self.objective.space
            with space.at(theta.to(space.theta)):
                evaluation = self.objective.evaluate()
            self.ledger.passes += evaluation.passes
            gradient = self.rule.decayed(evaluation.gradient, theta)
            if not (np.isfinite(evaluation.value) and gradient.isfinite().all()):
                raise FlowStoppedError("its loss or gradient is not finite")
            self._last = theta.clone(), evaluation, gradient
        return self._last[1], self._last[2]


class StableFlow:
    """The optimizer's equations in continuous time, without oscillations (the stable flow of arXiv 2410.24206):

        d theta / dt = -P(nu)^-1 g(theta),   d nu / dt = c (g**2 - nu).

    For gradient descent, `P = 1 / lr`, it is gradient flow. With `frozen`, nu stays at its value of the start: gradient
    flow in a fixed metric. The integrator is the explicit Runge-Kutta pair of order 3(2) of Bogacki and Shampine
    (scipy's `RK23`, which takes the solution of order 3), with substeps whose error estimate, in L2, is at most
    `tolerance` times the length of an optimizer's step, and the same share of nu. A substep takes three gradients.
    Along an eigenvalue a of `P^-1 H` the substeps must be below 2.5 / a, so a flow far beyond the edge gets dear.

    Args:
        objective: L, exact, the same function at all times.
        rule: the optimizer.
        frozen: whether nu is constant.
        tolerance: as above.
    """  # noqa: D415

    def __init__(self, objective: Objective, rule: FlowRule, frozen: bool = False, tolerance: float = TOLERANCE):
        self.rule, self.frozen, self.tolerance = rule, frozen, tolerance
        self.ledger = Ledger()
        self._evaluator = Evaluator(objective, rule, self.ledger)

    def point(self, state: FlowState) -> FlowPoint:
        """What the flow predicts at a state; costs a pass, which the next `advance` does not pay again."""
        evaluation, gradient = self._evaluator.at(state.theta)
        square = float(gradient.square().sum())
        return FlowPoint(evaluation.loss, evaluation.loss, square, square)

    def advance(self, state: FlowState, lr: float) -> FlowState:
        """The state one step of the optimizer later.

        Args:
            state: of the flow.
            lr: learning rate.

        Returns:
            The state.

        Raises:
            FlowStoppedError: if it takes more than `MOST` gradients, or becomes infinite.
        """
        from scipy.integrate import RK23  # imported here, as runs do not need it

        size, like, rule, count = len(state.theta), state.theta, self.rule, 0

        def slope(time: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
            nonlocal count
            count += 1
            values = torch.from_numpy(np.ascontiguousarray(y)).to(like)
            theta, nu = values[:size], values[size:]
            _, gradient = self._evaluator.at(theta)
            change = torch.zeros_like(nu) if self.frozen else rule.c * (rule.square(gradient) - nu)
            return np.asarray(torch.cat([-gradient / rule.preconditioner(nu, lr), change]).cpu().numpy())

        start = torch.cat([state.theta, state.nu]).cpu().numpy()
        first = slope(0.0, start)
        absolute = np.empty_like(start)
        for part, typical in ((slice(size), first[:size]), (slice(size, None), start[size:])):
            if len(typical):
                absolute[part] = self.tolerance * float(np.sqrt(np.mean(typical**2))) + np.finfo(np.float64).tiny
        solver = RK23(slope, 0.0, start, 1.0, rtol=_RELATIVE, atol=absolute, first_step=min(1.0, state.substep))
        substep = state.substep
        while solver.status == "running":
            planned = solver.h_abs
            problem = solver.step()
            if problem or solver.status == "failed" or not np.isfinite(solver.y).all():
                raise FlowStoppedError("it has no finite continuation")
            if count > MOST:
                raise FlowStoppedError(
                    f"it takes more than {MOST} gradients for one step: its curvature is far beyond the edge"
                )
            # the last substep is cut at the end: the one that was planned is as good for the start of the next step
            substep = solver.h_abs if solver.status == "running" else max(planned, solver.step_size)
        end = torch.from_numpy(solver.y).to(like)
        return replace(state, theta=end[:size], nu=end[size:], time=state.time + 1, substep=min(1.0, substep))
