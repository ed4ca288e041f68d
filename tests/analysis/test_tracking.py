"""Eigenpairs followed over steps: matching, crossings, catapults, the step's own ratio."""

import math

import pytest
import torch

from noiseless.analysis import catapults, crossings, step_ratio, tracked
from noiseless.analysis.tracking import Catapult, Crossing


def turned(angle, size=4):
    """The first two unit vectors, turned by an angle in their plane."""
    vectors = torch.zeros(2, size, dtype=torch.float64)
    vectors[0, 0], vectors[0, 1] = math.cos(angle), math.sin(angle)
    vectors[1, 0], vectors[1, 1] = -math.sin(angle), math.cos(angle)
    return vectors


def test_branches_follow_their_vectors_when_the_eigenvalues_change_places():
    first = tracked(turned(0.0))
    assert (first.branches, first.overlaps, first.span) == ((0, 1), (None, None), None)
    swapped = tracked(-turned(0.2).flip(0), first)  # the second is now the largest, and signs are free
    assert swapped.branches == (1, 0)
    assert swapped.overlaps == pytest.approx((math.cos(0.2),) * 2)
    assert swapped.span == pytest.approx(1)
    again = tracked(turned(0.3), swapped)
    assert again.branches == (0, 1)


def test_a_vector_with_no_half_of_itself_in_another_begins_a_branch():
    first = tracked(turned(0.0))
    third = torch.zeros(1, 4, dtype=torch.float64)
    third[0, 2] = 1
    second = tracked(torch.cat([third, turned(0.0)[:1]]), first)
    assert second.branches == (2, 0)
    assert second.overlaps == pytest.approx((0.0, 1.0))
    assert second.span == pytest.approx(0.5)
    quarter = tracked(turned(math.pi / 4 + 0.01), first)  # squared overlap with each just off a half: exchanged
    assert quarter.branches == (1, 0)
    assert tracked(turned(math.pi / 4 - 0.01), first).branches == (0, 1)


def test_the_matching_has_the_largest_sum():
    """Greedy would take 0.9 first and be left with 0.0; the assignment takes 0.8 and 0.7."""
    before = torch.eye(2, 3, dtype=torch.float64)
    x = torch.tensor([[0.9**0.5, 0.8**0.5 * 0.1, 0.3], [0.7**0.5, 0.0, 0.3**0.5]], dtype=torch.float64)
    x[0, 1] = 0.1**0.5
    result = tracked(x, tracked(before))
    assert result.overlaps == pytest.approx((0.9**0.5, 0.0)) or result.overlaps == pytest.approx((0.1**0.5, 0.7**0.5))
    squares = x[:, :2] ** 2
    best = max(float(squares[0, 0] + squares[1, 1]), float(squares[0, 1] + squares[1, 0]))
    assert sum(o * o for o in result.overlaps) == pytest.approx(best)


def test_crossings_lie_between_the_steps_that_are_known():
    steps, edges = [0, 2, 4, 6, 8], [10.0, 10.0, None, 20.0, 20.0]
    assert crossings(steps, edges, [9.0, 11.0, 30.0, 12.0, 21.0], 3) == [
        Crossing(3, 0, 2, True), Crossing(3, 2, 6, False), Crossing(3, 6, 8, True),
    ]  # fmt: skip
    assert crossings(steps, edges, [9.0, None, None, 11.0, 12.0]) == []


def test_a_catapult_is_a_rise_of_the_loss_above_the_edge_that_ends_below_it():
    steps, edges = list(range(8)), [10.0] * 8
    values = [8.0, 9.0, 12.0, 13.0, 7.0, 11.0, 9.0, 9.0]
    losses = dict(enumerate([1.0, 0.9, 0.8, 1.5, 1.2, 0.7, 0.6, 0.5]))
    # 1 -> 2 up, 3 -> 4 down: the loss goes from 0.9 to 1.5; the second stretch, from 4 to 6, has no rise
    assert catapults(steps, edges, values, losses) == [Catapult(1, 3, 4, 0.9, 1.5, 13.0, 7.0)]
    assert catapults(steps[:4], edges[:4], values[:4], losses) == []  # not over yet


def test_the_ratio_of_a_gradient_step_is_the_curvature_over_the_edge():
    g = torch.tensor([1.0, 2.0], dtype=torch.float64)
    H = torch.tensor([[3.0, 0.5], [0.5, 7.0]], dtype=torch.float64)
    d = -0.1 * g
    assert step_ratio(g, d, H @ d) == pytest.approx(float(g @ H @ g / (g @ g)) / (2 / 0.1))
    assert step_ratio(g, -d, H @ d) is None
