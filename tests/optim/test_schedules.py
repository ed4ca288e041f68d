"""Schedules: the paper's values, warm-up, floors, and what happens beyond the horizon."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless.optim import schedules

# The ladder's longer rows: base * (1 + cos(pi (t - 401) / 4000)) / 2 after 400 steps of warm-up. PAPER.md gives five
# digits, measured from the published scheduler: half a unit in the last place.


@pytest.mark.parametrize(("step", "lr"), [(400, 0.4), (1000, 0.37827), (2000, 0.26195), (2999, 0.10948)])
def test_cosine_has_the_papers_values(step, lr):
    assert schedules.cosine(0.4, 400, 4000)(step) == pytest.approx(lr, abs=5.1e-6)


def test_cosine_of_the_regularised_rows_ends_at_a_quarter():
    assert schedules.cosine(0.8, 400, 4000)(2999) == pytest.approx(0.2190, abs=5.1e-5)


def test_cosine_begins_at_the_peak_after_the_warm_up():
    schedule = schedules.cosine(0.4, 400, 4000)
    assert schedule(400) == schedule(401) == 0.4
    assert schedule(402) < 0.4


KINDS = [
    schedules.cosine(0.4, 10, 30),
    schedules.multi_step(0.4, 10, 80),
    schedules.exponential(0.4, 10, 0.9),
    schedules.constant(0.4, 10),
]


@pytest.mark.parametrize("schedule", KINDS)
def test_warm_up_is_linear_from_zero(schedule):
    assert [schedule(t) for t in range(11)] == pytest.approx([0.04 * t for t in range(11)])
    assert schedule(0) == 0.0


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 20), st.integers(1, 50), st.floats(0.01, 10), st.floats(0, 1))
def test_cosine_falls_to_its_floor_and_stays(warmup, horizon, lr, share):
    floor = lr * share
    schedule = schedules.cosine(lr, warmup, horizon, floor)
    values = [schedule(t) for t in range(warmup, warmup + horizon + 5)]
    tolerance = 1e-12 * lr
    assert all(later <= earlier + tolerance for earlier, later in itertools.pairwise(values))
    assert values[0] == pytest.approx(lr)
    assert values[-1] == pytest.approx(floor, abs=tolerance)
    assert values[horizon + 1] == pytest.approx(floor, abs=tolerance)  # t - warmup - 1 = horizon


def test_cosine_with_a_floor_is_halfway_at_half_of_the_horizon():
    # t - warmup - 1 = 15 = horizon / 2: cos(pi / 2) = 0, so floor + (lr - floor) / 2 = 0.1 + 0.15
    assert schedules.cosine(0.4, 10, 30, floor=0.1)(26) == pytest.approx(0.25)
    assert schedules.cosine(0.4, 10, 30, floor=0.1)(10_000) == pytest.approx(0.1)


def test_multi_step_falls_at_three_five_and_seven_eighths():
    schedule = schedules.multi_step(0.4, 0, 80)
    expected = [0.4] * 30 + [0.04] * 20 + [0.004] * 20 + [0.0004] * 10
    assert [schedule(t) for t in range(80)] == pytest.approx(expected)


def test_exponential_counts_from_the_end_of_the_warm_up():
    schedule = schedules.exponential(0.4, 3, 0.5)
    assert [schedule(t) for t in (3, 4, 5)] == pytest.approx([0.4, 0.2, 0.1])
    assert schedules.exponential(0.4, 0, 0.5)(0) == 0.4


def test_constant_is_constant():
    assert {schedules.constant(0.4, 0)(t) for t in range(100)} == {0.4}
    assert {schedules.constant(0.4, 7)(t) for t in range(7, 100)} == {0.4}


def test_without_warm_up_the_first_step_moves_at_the_peak():
    for schedule in (schedules.cosine(0.4, 0, 300), schedules.multi_step(0.4, 0, 80), schedules.constant(0.4, 0)):
        # the cosine's offset of one step is worth (pi / 300)**2 / 4 = 3e-5 of the peak at most
        assert math.isclose(schedule(0), 0.4, rel_tol=3e-5)
