"""Line searches on functions of one number: known answers, their conditions, and functions with wrong slopes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless.errors import UnknownNameError
from noiseless.optim import (
    LINE_SEARCHES,
    ArmijoSearch,
    Line,
    LinePoint,
    NonMonotoneSearch,
    RestartingSearch,
    StrongWolfeSearch,
    line_search_options,
    make_line_search,
)
from noiseless.optim.searches import line_search_name


class Counted:
    """A function with its slope, which records the sizes at which it is evaluated."""

    def __init__(self, value, slope):
        self.value, self.slope, self.sizes = value, slope, []

    def __call__(self, size):
        self.sizes.append(size)
        return LinePoint(size, self.value(size), self.slope(size))

    @property
    def start(self):
        return LinePoint(0.0, self.value(0.0), self.slope(0.0))


def point(search, phi, state=None, steepest=False):
    """The point that a search chooses along a function, from its first state or from `state`."""
    return search.step(Line(phi, phi.start, steepest), search.init() if state is None else state).point


def parabola(bend):
    """`-a + (bend / 2) a**2`, lowest at 1 / bend."""
    return Counted(lambda a: -a + bend / 2 * a * a, lambda a: -1 + bend * a)


@pytest.mark.parametrize(("c1", "halvings"), [(0.1, 6), (0.5, 7), (0.7, 8)])
def test_backtracking_on_a_parabola_ends_at_the_first_low_enough_size(c1, halvings):
    # -a + 50 a**2 <= -c1 a where a <= (1 - c1) / 50: 0.018, 0.01, 0.006. Powers of 2 below: 1/64, 1/128, 1/256
    phi = parabola(100.0)
    assert point(ArmijoSearch(c1=c1), phi).size == 2.0**-halvings
    assert len(phi.sizes) == 1 + halvings


def test_a_higher_reference_accepts_a_larger_size():
    # -a + 50 a**2 <= 12 - 0.1 a: 0.5 gives 12 > 11.95, 0.25 gives 2.875
    phi = parabola(100.0)
    assert point(NonMonotoneSearch(c1=0.1), phi, {"values": [3.0, 12.0, 5.0], "size": 1.0}).size == 0.25
    assert phi.sizes == [1.0, 0.5, 0.25]


def test_backtracking_that_fails_returns_the_start():
    phi = Counted(lambda a: a, lambda a: -1.0)  # rises, against its slope
    assert point(ArmijoSearch(trials=5, shrink=0.1), phi) == phi.start
    assert phi.sizes == pytest.approx([1, 0.1, 0.01, 1e-3, 1e-4])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_sizes_with_values_that_are_not_finite_are_shrunk(bad):
    phi = Counted(lambda a: bad if a > 0.3 else -a, lambda a: -1.0)
    assert point(ArmijoSearch(), phi).size == 0.25
    result = point(StrongWolfeSearch(), phi)
    assert 0.2 < result.size <= 0.3  # -a falls up to 0.3: the lowest trial
    assert result.value == -result.size


@pytest.mark.parametrize("bend", [0.01, 0.3, 1.0, 2.0, 8.0])
def test_wolfe_finds_the_lowest_point_of_a_parabola(bend):
    # With c2 = 1e-6 only sizes within 1e-6 of 1 / bend pass; the cubic through two points of a parabola is the parabola
    phi = parabola(bend)
    result = point(StrongWolfeSearch(c2=1e-6, c1=1e-9), phi)
    assert result.size == pytest.approx(1 / bend, rel=2e-6)
    assert len(phi.sizes) <= 2 + max(0, math.log2(2 / bend))  # doublings up to 1 / bend, then one


def conditions(phi, result, c1, c2):
    start = phi.start
    return result.value <= start.value + c1 * result.size * start.slope and abs(result.slope) <= c2 * abs(start.slope)


@settings(deadline=None, derandomize=True)
@given(st.floats(0.1, 3), st.floats(-2, 2), st.floats(0.05, 20), st.floats(1e-3, 1e3), st.sampled_from([0.1, 0.9]))
def test_wolfe_meets_its_conditions_on_wavy_functions(height, phase, frequency, scale, c2):
    # bounded below: (a / scale)**2 wins; the wave makes many hills between
    def value(a):
        x = a / scale
        return x * x - 3 * x + height * math.sin(frequency * x + phase)

    def slope(a):
        x = a / scale
        return (2 * x - 3 + height * frequency * math.cos(frequency * x + phase)) / scale

    phi = Counted(value, slope)
    if phi.start.slope < -1e-3 / scale:
        result = point(StrongWolfeSearch(c2=c2, trials=60), phi)
        assert conditions(phi, result, 1e-4, c2)
        assert result.size > 0


ANY = st.floats(allow_nan=True, allow_infinity=True)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(ANY, ANY), min_size=60, max_size=60), st.floats(max_value=-1e-300, allow_infinity=False))
@pytest.mark.parametrize("search", LINE_SEARCHES)
def test_a_search_ends_whatever_the_values_and_slopes(search, answers, slope):
    sizes = []

    def evaluate(size):
        sizes.append(size)
        return LinePoint(size, *answers[len(sizes) - 1])

    start = LinePoint(0.0, 0.0, slope)
    line = Line(evaluate, start, steepest=True)  # where a restart has no effect
    trials = make_line_search(search, trials=60)
    result = trials.step(line, trials.init()).point
    assert len(sizes) <= 60
    assert all(math.isfinite(size) and size > 0 for size in sizes)
    assert result == start or (result.finite and result.value <= 1e-4 * result.size * slope)


def test_a_cubic_without_minimum_halves_the_interval():
    # 0 and slope -1 at 0; -0.4 and slope -0.3 at 1, less of a decrease than c1 = 0.5 asks for. Eq. 3.59 has
    # d1 = -1 - 0.3 + 3 * 0.4 = -0.1 and d2 = sqrt(0.01 - 0.3)
    phi = Counted(lambda a: -0.4 if a == 1 else -a, lambda a: -0.3 if a == 1 else -1.0)
    point(StrongWolfeSearch(c1=0.5, trials=2), phi)
    assert phi.sizes == [1.0, 0.5]


def test_a_trial_above_the_lowest_bounds_the_interval_even_if_it_is_below_the_line():
    # -1 at 1, -0.9 at 2, both far below c1's line, both with a slope that is too steep: 2 lies behind a hill
    phi = Counted(lambda a: -0.9 if a == 2 else -a, lambda a: -1.0)
    point(StrongWolfeSearch(c2=0.5, trials=3), phi)
    assert phi.sizes[:2] == [1.0, 2.0]
    assert 1 < phi.sizes[2] < 2


def test_after_a_nan_a_tenth_of_the_way_to_it_is_tried():
    phi = Counted(lambda a: math.nan if a > 3 else -a, lambda a: -1.0)
    point(StrongWolfeSearch(trials=4), phi)
    assert phi.sizes == [1.0, 2.0, 4.0, pytest.approx(2.2)]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("armijo", {"c1": 0.0}, "c1 must be a number between 0 and 1, not 0.0"),
        ("armijo", {"c1": "tiny"}, "c1 must be a number between 0 and 1, not 'tiny'"),
        ("armijo", {"shrink": 1.0}, "shrink must be a number between 0 and 1"),
        ("wolfe", {"c1": 0.5, "c2": 0.4}, "c1 must be below its c2, not 0.5 and 0.4"),
        ("non-monotone", {"memory": 0}, "memory must be a whole number of at least 1, not 0"),
        ("restarting", {"trials": 2.5}, "trials must be a whole number of at least 1, not 2.5"),
        ("armijo", {"remember": 1}, "remember must be True or False, not 1"),
    ],
)  # fmt: skip
def test_numbers_out_of_their_range_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        make_line_search(kind, **options)


@pytest.mark.parametrize(
    ("kind", "option", "message"),
    [
        ("wolfe", "shrink", r"unknown option of the line search wolfe 'shrink'; known: c1, c2, trials, remember$"),
        ("armijo", "shrik", r"armijo 'shrik'; did you mean shrink\? known: c1, shrink, trials, remember$"),
        ("restarting", "remember", r"restarting 'remember'.*known: c1, shrink, trials, memory$"),
    ],
)  # fmt: skip
def test_an_unknown_option_is_refused_with_the_known_ones(kind, option, message):
    with pytest.raises(UnknownNameError, match=message):
        make_line_search(kind, **{option: 0.5})


def test_a_search_without_c2_allows_any_c1():
    assert make_line_search("armijo", c1=0.95) == ArmijoSearch(c1=0.95)


def test_an_unknown_search_is_refused_with_a_suggestion():
    with pytest.raises(UnknownNameError, match=r"unknown line search 'armio'; did you mean armijo"):
        make_line_search("armio")


@pytest.mark.parametrize("name", LINE_SEARCHES)
def test_names_and_classes_belong_together(name):
    search = make_line_search(name, trials=3)
    assert (search.trials, line_search_name(search)) == (3, name)
    assert {"c1", "trials"} <= set(line_search_options(name))


def test_an_accepted_size_is_remembered_and_a_failure_is_not():
    search, phi = ArmijoSearch(remember=True, trials=5), parabola(3.0)  # -a + 1.5 a**2 <= -1e-4 a from 1/2 on
    result = search.step(Line(phi, phi.start), search.init())
    assert (phi.sizes, result.state) == ([1.0, 0.5], {"size": 0.5})
    flat = parabola(100.0)  # low enough from 1/64 on: the fourth trial, after a first one of 2 * 1/16
    result = search.step(Line(flat, flat.start), {"size": 1 / 16})
    assert (flat.sizes, result.state) == ([0.125, 0.0625, 0.03125, 0.015625], {"size": 1 / 64})
    rising = Counted(lambda a: a, lambda a: -1.0)
    assert search.step(Line(rising, rising.start), result.state).state == result.state


def test_the_last_values_are_in_the_state():
    search, state, histories = NonMonotoneSearch(memory=2), NonMonotoneSearch().init(), []
    for height in (5.0, 3.0, 4.0):
        phi = Counted(lambda a, height=height: height - a, lambda a: -1.0)
        state = search.step(Line(phi, phi.start), state).state
        histories.append(state["values"])
    assert histories == [[5.0], [5.0, 3.0], [3.0, 4.0]]


def test_restarting_accepts_the_step_or_requests_a_restart():
    search, state = RestartingSearch(memory=2), {"values": [7.0, -0.5]}
    phi = parabola(4.0)  # 1 at size 1; 0 at 1/2, -1/8 at 1/4
    step = search.step(Line(phi, phi.start), {"values": [7.0, 2.0]})
    assert (step.point.size, step.restart, step.state) == (1.0, False, {"values": [2.0, 0.0]})
    step = search.step(Line(phi, phi.start), state)
    assert (step.point.size, step.restart, step.state) == (0.0, True, state)
    step = search.step(Line(phi, phi.start, steepest=True), state)  # compared with phi(0) = 0
    assert (step.point.size, step.restart, step.state) == (0.25, False, {"values": [-0.5, 0.0]})
