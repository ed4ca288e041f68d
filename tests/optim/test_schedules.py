"""Schedules: the paper's values, warm-up, floors, and what happens beyond the horizon."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless.optim import schedules
from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.run.updates import make_schedule

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


@pytest.mark.parametrize(("horizon", "t"), [(4, 0), (4, 1), (4, 2), (300, 1), (300, 299)])
def test_cosine_without_warm_up_is_the_plain_one(horizon, t):
    # 0.4 (1 + cos(pi t / horizon)) / 2: at a quarter and half of the way 0.2 (1 + sqrt(1/2)) and 0.2
    expected = {(4, 0): 0.4, (4, 1): 0.2 * (1 + math.sqrt(0.5)), (4, 2): 0.2}
    rate = schedules.cosine(0.4, 0, horizon)(t)
    assert rate == pytest.approx(expected.get((horizon, t), 0.4 * math.cos(math.pi * t / horizon / 2) ** 2), rel=1e-12)


def test_cosine_without_warm_up_ends_at_its_horizon():
    assert schedules.cosine(0.4, 0, 10, floor=0.1)(10) == pytest.approx(0.1)
    assert schedules.cosine(0.4, 0, 10, floor=0.1)(9) > 0.1


def test_multi_step_falls_at_three_five_and_seven_eighths():
    schedule = schedules.multi_step(0.4, 0, 80)
    expected = [0.4] * 30 + [0.04] * 20 + [0.004] * 20 + [0.0004] * 10
    assert [schedule(t) for t in range(80)] == pytest.approx(expected)


def test_exponential_counts_from_the_end_of_the_warm_up():
    schedule = schedules.exponential(0.4, 3, 0.5)
    assert [schedule(t) for t in (3, 4, 5)] == pytest.approx([0.4, 0.2, 0.1])
    assert schedules.exponential(0.4, 0, 0.5)(0) == 0.4


def test_multi_step_as_published_counts_from_one_step_after_the_warm_up():
    # milestones floor(80 / 2.667) = 29, floor(80 / 1.6) = 49 (in floating point 1.6 is a little more than 1.6, so that
    # 80 / 1.6 = 50 is not reached) and floor(80 / 1.142) = 70, met at t - 10 - 1
    schedule = schedules.multi_step(0.4, 10, 80, published=True)
    expected = [0.04 * t for t in range(10)] + [0.4] * 30 + [0.04] * 20 + [0.004] * 21 + [0.0004] * 9
    assert [schedule(t) for t in range(90)] == pytest.approx(expected)
    plain = schedules.multi_step(0.4, 0, 80, published=True)  # and at t without one
    assert [plain(t) for t in (28, 29, 48, 49, 69, 70)] == pytest.approx([0.4, 0.04, 0.04, 0.004, 0.004, 0.0004])


def test_exponential_as_published_begins_a_step_later():
    schedule = schedules.exponential(0.4, 3, 0.5, published=True)
    assert [schedule(t) for t in (3, 4, 5, 6)] == pytest.approx([0.4, 0.4, 0.2, 0.1])
    plain = schedules.exponential(0.4, 0, 0.5, published=True)
    assert [plain(t) for t in (0, 1)] == pytest.approx([0.4, 0.2])


@pytest.mark.parametrize(("compat", "lr"), [("none", 0.2), ("published", 0.4)])
def test_compat_chooses_the_schedule_of_a_recipe(compat, lr):
    recipe = with_flags(
        Recipe(), lr=0.4, warmup=3, schedule="exponential", decay=0.5, steps=9, horizon=9, compat=compat
    )
    assert make_schedule(recipe)(4) == pytest.approx(lr)
    stepped = make_schedule(with_flags(recipe, schedule="multi-step"))
    # 3/8 of 9 is 3.4; as published floor(9 / 2.667) = 3 is met at t - 3 - 1
    assert stepped(4) == pytest.approx(0.04 if compat == "none" else 0.4)
    assert make_schedule(with_flags(recipe, schedule="cosine"))(4) == 0.4  # the same in both


def test_constant_is_constant():
    assert {schedules.constant(0.4, 0)(t) for t in range(100)} == {0.4}
    assert {schedules.constant(0.4, 7)(t) for t in range(7, 100)} == {0.4}


def test_without_warm_up_the_first_step_has_the_peak_rate():
    for schedule in (schedules.cosine(0.4, 0, 300), schedules.multi_step(0.4, 0, 80), schedules.constant(0.4, 0)):
        assert schedule(0) == 0.4
