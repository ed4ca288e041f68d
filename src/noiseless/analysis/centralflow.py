"""The central flow: the mean path of an optimizer that oscillates at the edge of stability (arXiv 2410.24206)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from noiseless.analysis.complementarity import NoSolutionError, matrix, solve, vector
from noiseless.analysis.flow import Evaluator, FlowPoint, FlowState, FlowStoppedError, Ledger
from noiseless.analysis.flowrule import FlowRule
from noiseless.analysis.krylov import dots
from noiseless.analysis.operator import Hessian, Preconditioned
from noiseless.analysis.spectrum import PROBE, top_eigenvalues
from noiseless.objective.base import Evaluation, Objective
from noiseless.objective.thirds import hessian_gradient, hessian_gradient_passes, pairs

EDGE = 2.0
"""eigenvalue of `P^-1 H` at which steps without momentum neither grow nor shrink"""
NEAR = 0.95
"""share of the edge above which an eigenvalue takes part in the complementarity problem"""
WATCHED = 0.9
"""share of the edge above which the smallest eigenvalue that is followed gets a further one below it"""
RETURN = 0.05
"""largest share of the edge by which an eigenvalue beyond it is led back in a substep; a flow may start beyond it"""
SEARCH_EVERY = 10
"""steps between searches for an eigenvector that is not followed and has a larger eigenvalue"""


@dataclass(frozen=True)
class _Look:
    """What a substep needs to know at its start."""

    evaluation: Evaluation
    gradient: Tensor
    """with weight decay, float64 `[P]`"""
    values: Tensor
    """eigenvalues of `P^-1 H`, float64 `[m]`"""
    vectors: Tensor
    """`[m, P]`"""
    X: np.ndarray
    """`[K, K]`"""
    force: Tensor
    """`(1 / 2) grad <Sigma, H>`, float64 `[P]`"""
    variance: Tensor
    """diagonal of Sigma, float64 `[P]`"""
    squares: Tensor
    """diagonal of `H Sigma H`, float64 `[P]`"""


class CentralFlow:
    """The central flow of gradient descent, scalar RMSProp or RMSProp.

    An optimizer at the edge of stability oscillates around a mean path. With Sigma the covariance of the oscillation
    and H the Hessian of L, weight decay included, the mean of the gradient is to second order
    `g + (1/2) grad <Sigma, H>`, and that of its square `g**2 + diag(H Sigma H)`. So

        d theta / dt = -P^-1 [g + (1/2) grad <Sigma, H>],   d nu / dt = c (g**2 + diag(H Sigma H) - nu).

    Sigma keeps the curvature at the edge. Let W hold the generalised eigenvectors, `H w = a P w` and `W^T P W = I`,
    with a at 2. Then `Sigma = W X W^T` with X positive semidefinite, and X is where the growth of `W^T (H - 2 P) W`
    stops: no eigenvalue exceeds 2, and X acts only along those that stay at 2. The growth is linear in X, by the third
    derivatives `grad (w_i . H w_j)` and by `dP / dnu`, so this is a complementarity problem of semidefinite matrices
    (`complementarity.solve`). For gradient descent, it is `2 / lr` that the eigenvalues of H do not exceed.

    A substep of size h solves it for the end of the substep, `a + h (growth) <= 2`, for all eigenvalues above `NEAR`
    times the edge. So eigenvalues do not drift from the edge; they are off by O(h**2). The move is Heun's, of order 2
    in g, with Sigma and its force constant within the substep, so the flow is of order 1 at the edge and 2 below it.
    Where a flow starts beyond the edge, which the equations do not describe, eigenvalues are led back by at most
    `RETURN` times the edge in a substep.

    The predicted means are `L + (1/2) <Sigma, H_L>`, with H_L the Hessian without the decay, and
    `||g||**2 + tr(H Sigma H)`.

    Args:
        objective: L, exact, the same function at all times.
        rule: the optimizer.
        substeps: in one step of the optimizer.
        directions: largest number of eigenvectors that are followed; one more than may be at the edge.
        tolerance: of the eigenvectors, see `top_eigenvalues`.
        seed: keys the searches.
    """

    def __init__(
        self,
        objective: Objective,
        rule: FlowRule,
        substeps: int = 2,
        directions: int = 6,
        tolerance: float = 3e-3,
        seed: int = 0,
    ):
        self.objective, self.rule, self.substeps, self.seed = objective, rule, substeps, seed
        self.directions = min(directions, len(objective.space))
        self.tolerance, self.ledger = tolerance, Ledger()
        self.crowded = False
        """whether all directions that may be followed have been at the edge at once"""
        self._evaluator = Evaluator(objective, rule, self.ledger)
        self._last: tuple[FlowState, float, float, _Look] | None = None

    def point(self, state: FlowState, lr: float, following: float | None = None) -> FlowPoint:
        """What the flow predicts at a state; its cost is not paid again by an `advance` with the same rates.

        Args:
            state: of the flow.
            lr: learning rate.
            following: learning rate of the next step; None: the same.

        Returns:
            The prediction.

        Raises:
            FlowStoppedError: see `advance`.
        """
        look = self._look(state, lr, lr if following is None or self.substeps > 1 else following)
        decay = 0.0 if self.rule.decay is None else float((self.rule.decay * look.variance).sum()) / 2
        square = float(look.gradient.square().sum())
        oscillation = np.linalg.eigvalsh(look.X)[::-1].tolist()
        return FlowPoint(
            look.evaluation.loss,
            look.evaluation.loss + EDGE / 2 * float(np.trace(look.X)) - decay,
            square,
            square + float(look.squares.sum()),
            look.values.tolist(),
            oscillation,
            float(look.variance.sum()),
        )

    def advance(self, state: FlowState, lr: float, following: float | None = None) -> FlowState:
        """The state one step of the optimizer later.

        Args:
            state: of the flow.
            lr: learning rate.
            following: learning rate of the next step, which sets the edge at the end; None: the same.

        Returns:
            The state.

        Raises:
            FlowStoppedError: if no oscillation keeps the curvature at the edge, or the loss is not finite.
        """
        for number in range(self.substeps):
            last = number == self.substeps - 1
            state = self._moved(state, lr, following if last and following is not None else lr)
        return replace(state, time=float(round(state.time)))

    def _moved(self, state: FlowState, lr: float, end: float) -> FlowState:
        look, h, rule = self._look(state, lr, end), 1 / self.substeps, self.rule
        extra = rule.reduced(look.squares)

        def slopes(gradient: Tensor, nu: Tensor) -> tuple[Tensor, Tensor]:
            change = rule.c * (rule.square(gradient) + extra - nu)
            return -(gradient + look.force) / rule.preconditioner(nu, lr), change

        first = slopes(look.gradient, state.nu)
        theta, nu = state.theta + h * first[0], (state.nu + h * first[1]).clamp(min=0)
        second = slopes(self._evaluator.at(theta)[1], nu)
        return replace(
            state,
            theta=state.theta + h / 2 * (first[0] + second[0]),
            nu=(state.nu + h / 2 * (first[1] + second[1])).clamp(min=0),
            time=state.time + h,
            vectors=look.vectors,
            values=look.values,
        )

    def _look(self, state: FlowState, lr: float, end: float) -> _Look:
        if self._last is None or self._last[0] is not state or self._last[1:3] != (lr, end):
            evaluation, gradient = self._evaluator.at(state.theta)
            space = self.objective.space
            with space.at(state.theta.to(space.theta)):
                self._last = state, lr, end, self._solved(state, lr, end, evaluation, gradient)
        return self._last[3]

    def _solved(self, state: FlowState, lr: float, end: float, evaluation: Evaluation, gradient: Tensor) -> _Look:
        """Eigenpairs, Sigma and its effects; the module holds the state's parameters."""
        rule, like = self.rule, self.objective.space.theta
        P = rule.preconditioner(state.nu, lr)
        root = P.rsqrt().expand(len(like))
        values, vectors = self._followed(state, root)
        near = values * (end / lr) > NEAR * EDGE
        nothing = torch.zeros_like(gradient)
        if not near.any():
            return _Look(evaluation, gradient, values, vectors, np.zeros((0, 0)), nothing, nothing, nothing)
        W = vectors[near].double() * root
        K = len(W)
        basis = pairs(K)
        rows, columns = torch.triu_indices(K, K)
        scale = torch.where(rows == columns, 1.0, 2.0**0.5).to(gradient)[:, None]
        T = scale * hessian_gradient(self.objective, W.to(like), basis).double()  # gradients of the forms w_i . H w_j
        self.ledger.passes += hessian_gradient_passes(self.objective, basis)
        phi = scale * W[rows] * W[columns]  # the diagonal of Sigma is x @ phi
        growth = -dots(T, (gradient / P)[None])[:, 0]
        B = dots(T, T / P) / 2
        if rule.c:
            slope = rule.slope(state.nu, lr)
            change = (slope * rule.c * (rule.square(gradient) - state.nu)).expand(len(like))
            growth = growth - EDGE * dots(phi, change[None])[:, 0]
            effects = [(slope * rule.c * rule.reduced(EDGE**2 * P**2 * row)).expand(len(like)) for row in phi]
            B = B + EDGE * dots(phi, torch.stack(effects))
        room = (EDGE * lr / end - values[near]).clamp(min=-RETURN * EDGE) * self.substeps
        Q = np.diag(room.cpu().numpy()) - matrix(growth.cpu().numpy())
        try:
            X = solve(Q, B.cpu().numpy())
        except NoSolutionError as error:
            raise FlowStoppedError(f"no oscillation keeps the curvature at the edge: {error}") from None
        x = torch.from_numpy(vector(X)).to(gradient)
        variance = x @ phi
        return _Look(evaluation, gradient, values, vectors, X, x @ T / 2, variance, EDGE**2 * P**2 * variance)

    def searched(self, state: FlowState, lr: float) -> tuple[float, float]:
        """The largest eigenvalue of `P^-1 H` at a state, by a search that knows nothing of the eigenvectors followed.

        Args:
            state: of the flow.
            lr: learning rate.

        Returns:
            The eigenvalue, and the passes it took, which the ledger does not have.
        """
        space = self.objective.space
        with space.at(state.theta.to(space.theta)):
            operator = self._operator(self.rule.preconditioner(state.nu, lr).rsqrt().expand(len(space)))
            top = top_eigenvalues(operator, 1, tolerance=self.tolerance, seed=self.seed + 1)
        return float(top.largest.values[0]), top.passes

    def _operator(self, root: Tensor) -> Preconditioned:
        """`P^-1/2 (H + w) P^-1/2`, for root `P^-1/2` `[P]`."""
        like = self.objective.space.theta
        decay = 0.0 if self.rule.decay is None else self.rule.decay.to(like)
        return Preconditioned(Hessian(self.objective), root.to(like), decay)

    def _followed(self, state: FlowState, root: Tensor) -> tuple[Tensor, Tensor]:
        """The largest eigenvalues of `P^-1 H`, one of them below the edge if possible.

        A search with a random vector, which is dear, is done at the start, at every `SEARCH_EVERY`-th step, and when
        one more eigenvector is needed.

        Returns:
            The eigenvalues, and the eigenvectors of `P^-1/2 H P^-1/2`.
        """
        operator, start = self._operator(root), state.vectors
        if start is not None and state.values is not None:
            calm = float(state.values[0]) < WATCHED * EDGE
            if calm and state.time % 1:  # within a step, eigenvalues far below the edge do not get there
                return state.values, start
        count = 2 if start is None else len(start)
        search = start is None or state.time % SEARCH_EVERY == 0
        while True:
            count = min(count, self.directions)
            top = top_eigenvalues(
                operator, count, tolerance=self.tolerance, start=start, seed=self.seed, probes=PROBE if search else 0
            )
            self.ledger.passes += top.passes
            start = top.largest.vectors
            full = float(top.largest.values[-1]) > WATCHED * EDGE
            if not full or count == self.directions:
                self.crowded |= full and bool(float(top.largest.values[-1]) > NEAR * EDGE)
                return top.largest.values.to(root), start
            count, search = count + 1, True
