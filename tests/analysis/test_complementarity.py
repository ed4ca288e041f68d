"""The complementarity problem of matrices: against closed forms, and against minimisation by brute force."""

import numpy as np
import pytest
from scipy.optimize import minimize

from noiseless.analysis.complementarity import NoSolutionError, matrix, solve, vector, violation


def problem(K, seed):
    rng = np.random.default_rng(seed)
    n = K * (K + 1) // 2
    G, Q = rng.standard_normal((n + 2, n)), rng.standard_normal((K, K))
    return Q + Q.T, G.T @ G * 10 ** rng.uniform(-3, 3)


def test_coordinates_keep_inner_products():
    A, B = (problem(4, seed)[0] for seed in (0, 1))
    assert vector(A) @ vector(B) == pytest.approx((A * B).sum())
    np.testing.assert_allclose(matrix(vector(A)), A)


def test_one_direction_in_closed_form():
    # X = max(0, -Q / B)
    assert solve(np.array([[-3.0]]), np.array([[2.0]])) == pytest.approx(1.5)
    assert solve(np.array([[3.0]]), np.array([[2.0]])) == 0


def test_directions_that_do_not_couple():
    # B = diag(2, 1, 4) in the coordinates (11, 12, 22) and a diagonal Q: each entry of the diagonal by itself
    X = solve(np.diag([-3.0, 5.0]), np.diag([2.0, 1.0, 4.0]))
    np.testing.assert_allclose(X, np.diag([1.5, 0.0]), atol=1e-8)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_minimum_by_brute_force(K, seed):
    """The conditions are those of the minimum of `<X, B X> / 2 + <Q, X>`; X = R R^T needs no constraint on R."""
    Q, B = problem(K, seed)
    X = solve(Q, B)

    def value(r):
        x = vector(r.reshape(K, K) @ r.reshape(K, K).T)
        return x @ B @ x / 2 + vector(Q) @ x

    scale = np.sqrt(np.abs(Q).max() / np.trace(B))
    starts = (np.random.default_rng(k).standard_normal(K * K) * scale for k in range(4))
    best = min(
        (minimize(value, start, method="BFGS", options={"gtol": 1e-12}) for start in starts), key=lambda r: r.fun
    )
    R = best.x.reshape(K, K)
    np.testing.assert_allclose(X, R @ R.T, atol=1e-4 * (1e-6 + np.abs(X).max()))
    assert violation(X, Q, B) < 1e-6
    assert vector(X) @ B @ vector(X) / 2 + vector(Q) @ vector(X) <= best.fun + 1e-7 * abs(best.fun)


def test_what_nothing_resists_has_no_solution():
    with pytest.raises(NoSolutionError, match="third derivatives vanish"):
        solve(np.array([[-1.0]]), np.array([[0.0]]))
    with pytest.raises(NoSolutionError):  # the second direction is not resisted
        solve(np.diag([1.0, -1.0]), np.diag([1.0, 0.0, 0.0]))


def test_a_violation_is_told():
    Q, B = problem(3, 7)
    assert violation(np.zeros((3, 3)), Q, B) > 0.1
    assert violation(-np.eye(3), Q, B) > 0.1
