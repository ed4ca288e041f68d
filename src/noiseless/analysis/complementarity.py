"""Linear complementarity over positive semidefinite matrices: which covariance keeps curvatures at the edge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
TOLERANCE = 1e-9
"""change of X in an iteration, relative to its length, at which the iterations end"""
ACCEPTED = 1e-5
"""largest violation of the conditions, relative to the lengths of X and Q, with which X is returned"""
MOST = 5_000
"""largest number of iterations; some hundred are usual"""


class NoSolutionError(ValueError):
    """The conditions have no solution."""


def solve(Q: Matrix, B: Matrix) -> Matrix:
    """The symmetric X with `X >= 0`, `Y = Q + B[X] >= 0` and `<X, Y> = 0`, in the order of semidefinite matrices.

    For a B that is symmetric and positive semidefinite these are the optimality conditions of

        min over X >= 0 of  <X, B[X]> / 2 + <Q, X>,

    a convex problem, which is solved by the alternating direction method of multipliers (Boyd et al. 2011, doi
    10.1561/2200000016): a linear system and a projection onto the semidefinite matrices in turn. K is the number of
    critical directions, so all matrices are small.

    Args:
        Q: symmetric `[K, K]`.
        B: the linear map in the coordinates of `vector`, `[n, n]` with `n = K (K + 1) / 2`.

    Returns:
        X, symmetric `[K, K]`.

    Raises:
        NoSolutionError: if no X is found: where B does not resist a direction in which Q is negative.
    """
    size = float(np.linalg.norm(Q))
    if len(Q) == 0 or float(np.linalg.eigvalsh(Q)[0]) >= 0:
        return np.zeros_like(Q)
    strength = float(np.trace(B)) / len(B)
    if not 0 < strength < np.inf:
        raise NoSolutionError("nothing resists the growth of the curvature: the third derivatives vanish")
    if len(Q) == 1:
        return -Q / B
    q, B = vector(Q) / size, (B + B.T) / (2 * strength)
    values = np.linalg.eigvalsh(B)
    rho = float(np.sqrt(values[-1] * max(values[0], 1e-3 * values[-1])))
    inverse = np.linalg.inv(B + rho * np.eye(len(B)))
    z, u = np.zeros_like(q), np.zeros_like(q)
    for _ in range(MOST):
        x = inverse @ (rho * (z - u) - q)
        before, z = z, vector(_positive(matrix(x + u)))
        u = u + x - z
        if np.linalg.norm(x - z) + rho * np.linalg.norm(z - before) <= TOLERANCE * (1 + np.linalg.norm(z)):
            break
    if violation(matrix(z), matrix(q), B) <= ACCEPTED:
        return matrix(z) * (size / strength)
    raise NoSolutionError("no covariance of the oscillation keeps all curvatures at the edge")


def violation(X: Matrix, Q: Matrix, B: Matrix) -> float:
    """By how much X violates the conditions of `solve`: the largest of the three, relative to `|X|`, `|Q|`, `|X| |Q|`.

    Args:
        X: symmetric `[K, K]`.
        Q: as in `solve`.
        B: as in `solve`.

    Returns:
        The violation; 0 where X is a solution.
    """
    Y, length, size = Q + matrix(B @ vector(X)), float(np.linalg.norm(X)), float(np.linalg.norm(Q))
    if not np.isfinite(length):
        return float("inf")
    lowest = [float(np.linalg.eigvalsh(part)[0]) for part in (X, Y)]
    tiny = np.finfo(np.float64).tiny
    inner = abs(float((X * Y).sum())) / (length * size + tiny)
    return max(-lowest[0] / (length + tiny), -lowest[1] / (size + tiny), inner)


def vector(X: Matrix) -> Matrix:
    """The coordinates of a symmetric matrix `[K, K]`: its upper triangle, with `sqrt(2)` beside the diagonal.

    So inner products are those of the matrices.

    Args:
        X: symmetric.

    Returns:
        `[K (K + 1) / 2]`, in the order of `objective.thirds.pairs`.
    """
    rows, columns = np.triu_indices(len(X))
    return np.asarray(X[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2)))


def matrix(x: Matrix) -> Matrix:
    """The symmetric matrix `[K, K]` with coordinates x, the inverse of `vector`."""
    K = round((np.sqrt(8 * len(x) + 1) - 1) / 2)
    X = np.zeros((K, K))
    rows, columns = np.triu_indices(K)
    X[rows, columns] = X[columns, rows] = x / np.where(rows == columns, 1.0, np.sqrt(2))
    return X


def _positive(X: Matrix) -> Matrix:
    """The nearest positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(X)
    return np.asarray((vectors * values.clip(min=0)) @ vectors.T)
