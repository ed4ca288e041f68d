"""Decompositions of small matrices by plain rotations and projections, in a fixed order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST = 64
"""largest matrix; these are loops in Python"""
SWEEPS = 60


def eigenvectors(matrix: Tensor, uplo: str = "L", compute_v: bool = True) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix by Jacobi's cyclic rotations (1846).

    Args:
        matrix: float64 `[n, n]`, n at most 64.
        uplo: the triangle that is read.
        compute_v: ignored; the eigenvectors are always computed.

    Returns:
        `[n]`, and `[n, n]` with the eigenvectors as columns.

    Raises:
        ValueError: for other matrices.
    """
    if matrix.ndim != 2 or len(matrix) > MOST:
        raise ValueError(f"portable eigenvectors are those of one matrix of at most {MOST} rows: {list(matrix.shape)}")
    n = len(matrix)
    lower = matrix.double().tolist()
    pairs = [[(max(i, j), min(i, j)) if uplo == "L" else (min(i, j), max(i, j)) for j in range(n)] for i in range(n)]
    a = [[lower[i][j] for i, j in row] for row in pairs]
    v = [[float(i == j) for j in range(n)] for i in range(n)]
    for _ in range(SWEEPS):
        if not any(a[i][j] for i in range(n) for j in range(i)):
            break
        for p in range(n):
            for q in range(p + 1, n):
                _rotate(a, v, p, q)
    order = sorted(range(n), key=lambda k: a[k][k])
    values = torch.tensor([a[k][k] for k in order], dtype=matrix.dtype)
    return values, torch.tensor([[row[k] for k in order] for row in v], dtype=matrix.dtype)


def _rotate(a: list[list[float]], v: list[list[float]], p: int, q: int) -> None:
    """Makes the element (p, q) zero by a rotation."""
    off = a[p][q]
    if off == 0:
        return
    if abs(off) < 1e-20 * math.sqrt(abs(a[p][p] * a[q][q])):
        a[p][q] = a[q][p] = 0.0
        return
    theta = (a[q][q] - a[p][p]) / (2 * off)
    t = math.copysign(1.0, theta) / (abs(theta) + math.sqrt(theta * theta + 1))
    c = 1 / math.sqrt(t * t + 1)
    s = t * c
    for k in range(len(a)):
        a[k][p], a[k][q] = c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]
        v[k][p], v[k][q] = c * v[k][p] - s * v[k][q], s * v[k][p] + c * v[k][q]
    for k in range(len(a)):
        a[p][k], a[q][k] = c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]
    a[p][q] = a[q][p] = 0.0


def orthonormal(matrix: Tensor, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    """Q and R with `matrix = Q R`, by Gram and Schmidt's projections, twice each.

    Args:
        matrix: `[m, n]` of full column rank, m >= n, n at most 64.
        mode: "reduced".

    Returns:
        Q `[m, n]` and R `[n, n]` with a positive diagonal.

    Raises:
        ValueError: for other matrices.
    """
    if mode != "reduced" or matrix.ndim != 2 or len(matrix) < matrix.shape[1] or matrix.shape[1] > MOST:
        raise ValueError(f"a portable QR decomposition takes [m, n] with m >= n, n <= {MOST}: {list(matrix.shape)}")
    columns = [list(column) for column in zip(*matrix.double().tolist(), strict=True)]
    n = len(columns)
    r = [[0.0] * n for _ in range(n)]
    for k, column in enumerate(columns):
        for _ in range(2):
            for j in range(k):
                share = _dot(columns[j], column)
                r[j][k] += share
                column[:] = [x - share * y for x, y in zip(column, columns[j], strict=True)]
        r[k][k] = math.sqrt(_dot(column, column))
        column[:] = [x / r[k][k] for x in column]
    q = torch.tensor(columns, dtype=torch.float64).T
    return q.to(matrix.dtype), torch.tensor(r, dtype=torch.float64).to(matrix.dtype)


def _dot(x: list[float], y: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))
