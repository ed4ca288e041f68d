"""The largest and smallest eigenvalues of a symmetric operator. The largest one of the Hessian is the sharpness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis.krylov import Subspace, dots
from noiseless.analysis.operator import Operator, random_vectors

TOLERANCE = 1e-3
"""largest residual, relative to the largest magnitude of a Ritz value; eigenvalues have about its square as error"""
MOST = 200
"""largest number of products"""
PROBE = 8
"""products with a random vector, outside the eigenvectors, that look for a larger eigenvalue than a start leads to"""
NEW = 0.1
"""smallest share of a residual's length outside the others' span (all are collinear if the start is one vector)"""


@dataclass(frozen=True)
class Eigenpairs:
    """Approximate eigenpairs (Ritz pairs) at one end of a spectrum, the outermost first."""

    values: Tensor
    """float64 `[k]`"""
    vectors: Tensor
    """of length 1, `[k, P]`"""
    residuals: Tensor
    """`||A x - value x||`, float64 `[k]`: an eigenvalue of A lies within that distance of each value"""


@dataclass(frozen=True)
class TopEigenvalues:
    """The largest and smallest eigenvalues of an operator, with their vectors and residuals."""

    largest: Eigenpairs
    """in descending order"""
    smallest: Eigenpairs
    """in ascending order"""
    products: int
    """number of vectors that were multiplied"""
    passes: float
    """cost of these products, in passes"""
    converged: bool
    """whether every residual is within the tolerance: an eigenvalue is near each value. That no larger one exists is
    likely, not proven, see `top_eigenvalues`"""


def top_eigenvalues(
    operator: Operator,
    largest: int = 1,
    smallest: int = 0,
    *,
    tolerance: float = TOLERANCE,
    most: int = MOST,
    start: Tensor | None = None,
    seed: int = 0,
    probes: int = PROBE,
) -> TopEigenvalues:
    """The largest and smallest eigenvalues, by thick-restart Lanczos with full reorthogonalisation.

    The subspace begins with `start`, or with one random vector, and grows by the residuals of those Ritz pairs that are
    not within the tolerance yet: by one vector per step if it began with one, by several if it began with several. From
    a single start vector, a multiple eigenvalue is returned once.

    A small residual `r` proves that an eigenvalue lies within r of the value, not that it is the outermost one: a start
    at the second eigenvector is an eigenvector, too. So a random vector u is added to a given start, and the Krylov
    space of u, outside the vectors that are returned, is expanded by `probes` products; whatever is larger there takes
    the place of what was returned. An eigenvalue is missed where u has nearly no component along its vector. After k
    products, the largest Ritz value of a random start in P dimensions is below `l_1 - e (l_1 - l_P)`, with l_1 the
    largest and l_P the smallest eigenvalue, with a probability of at most `1.648 sqrt(P) exp(-sqrt(e) (2 k - 1))`
    (Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 1992, doi 10.1137/0613066).

    Args:
        operator: A, `[P, P]`.
        largest: number of largest eigenvalues (by value, not magnitude).
        smallest: number of smallest eigenvalues.
        tolerance: of residuals, relative to the largest magnitude of a Ritz value.
        most: largest number of products.
        start: vectors to begin with, `[k, P]`, such as the eigenvectors of a nearby state; a random vector is added.
            None: the random vector alone.
        seed: keys the random vector.
        probes: products with the random vector that is added to a start; 0: none is added, and nothing looks for
            eigenvalues that the start does not lead to.

    Returns:
        Values, vectors and residuals, also if they have not converged within `most` products.

    Raises:
        ValueError: if a number is out of range, the start has another shape, or a product is not finite.
    """
    size = len(operator.space)
    count = largest + smallest
    if largest < 0 or smallest < 0 or not 1 <= count <= size:
        raise ValueError(
            f"between 1 and {size} eigenvalues can be computed, not {largest} largest and {smallest} smallest"
        )
    if not 0 < tolerance < 1:
        raise ValueError(f"the tolerance is a share of the largest eigenvalue, between 0 and 1, not {tolerance}")
    if most < count:
        raise ValueError(f"{count} eigenvalues take at least {count} products, so {most} are too few")
    if start is not None and (start.ndim != 2 or start.shape[1] != size):
        raise ValueError(f"the start must have shape [k, {size}], not {list(start.shape)}")
    space = Subspace(operator, room(count))
    chain = random_vectors(operator.space, seed, "lanczos", 0, 1)
    candidates, drawn = chain, 1
    if start is None:
        probes = 0
    else:
        candidates = torch.cat([start.to(chain), chain]) if probes else start.to(chain)
    while True:
        added = space.expand(candidates[: most - space.products], NEW)
        if not space.size:  # a start of zeros
            candidates = random_vectors(operator.space, seed, "lanczos", drawn, 1)
            drawn += 1
            continue
        values, coefficients = space.ritz()
        chosen = _outermost(space.size, largest, smallest)
        residuals = _residuals(space, values, coefficients, chosen)
        norms = dots(residuals, residuals).diagonal().clamp(min=0).sqrt().cpu()
        bound = tolerance * float(values.abs().max())
        unconverged = norms > bound
        enough = len(chosen) == count
        if probes:
            probes -= 1
            chain = space.images[-1:].clone()  # of the random vector, or of its image before: the last that was added
        if (enough and not unconverged.any() and not probes) or space.products >= most:
            break
        candidates = residuals[unconverged.to(residuals.device)]
        if probes:
            candidates = torch.cat([candidates, chain])
        if not added or not len(candidates):  # the residuals add no direction: an invariant subspace, or rounding
            if enough and not added and (not probes or space.size == size):
                break
            candidates = random_vectors(operator.space, seed, "lanczos", drawn, 1)
            drawn += 1
        if space.size + len(candidates) > space.room and space.room < size:
            space.restart(coefficients[:, _restart_positions(space.size, largest, smallest)])
    pairs = [_pairs(space, values, coefficients, chosen[part], norms[part]) for part in _parts(len(chosen), largest)]
    done = enough and not bool(unconverged.any())
    return TopEigenvalues(pairs[0], pairs[1], space.products, space.passes, done)


def room(count: int) -> int:
    """Number of basis vectors in the search for `count` eigenvalues; memory is proportional to it."""
    return max(20, 4 * count)


def _outermost(size: int, largest: int, smallest: int) -> Tensor:
    """Positions among ascending Ritz values: of the largest, from the top, then of the smallest, none of them twice."""
    top = list(range(size - 1, max(-1, size - 1 - largest), -1))
    return torch.tensor(top + [k for k in range(min(smallest, size)) if k not in top])


def _restart_positions(size: int, largest: int, smallest: int) -> Tensor:
    """Positions that a restart keeps: for faster convergence, twice as many as are computed."""
    return _outermost(size, 2 * largest, 2 * smallest)


def _parts(count: int, largest: int) -> tuple[slice, slice]:
    return slice(0, min(count, largest)), slice(min(count, largest), count)


def _residuals(space: Subspace, values: Tensor, coefficients: Tensor, chosen: Tensor) -> Tensor:
    vectors, images = space.combined(coefficients[:, chosen])
    return images - values[chosen].to(vectors)[:, None] * vectors


def _pairs(space: Subspace, values: Tensor, coefficients: Tensor, chosen: Tensor, norms: Tensor) -> Eigenpairs:
    vectors, _ = space.combined(coefficients[:, chosen])
    return Eigenpairs(values[chosen], vectors, norms)
