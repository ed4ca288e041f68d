"""Curves and numbers as text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiseless.report.text import ASCII_BLOCKS, BLOCKS, duration, logarithmic, number, sparkline

finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.lists(st.one_of(st.none(), st.floats()), max_size=60)


@pytest.mark.parametrize(
    ("curve", "width", "expected"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 80, "▁▂▃▄▅▆▇█"),  # not stretched
        ([0, 0, 7, 7], 2, "▁█"),
        ([0, None, 7], 3, "▁ █"),
        ([0, math.nan, math.inf, 7], 4, "▁  █"),
        ([0, 0, None, 7, 7, 7], 3, "▁ █"),  # a gap among the values of a column is not hidden
        ([3, 3, None], 3, "▅▅ "),  # a constant is in the middle
        ([1, 10, 100], 3, "▁▅█"),  # by the logarithm: 10 is half way
        ([0, 10, 100], 3, "▁▁█"),  # 0 has no logarithm; 10 of 100 is in the lowest eighth
        ([None, None], 2, "  "),
        ([], 5, ""),
    ],
)
def test_a_sparkline_by_hand(curve, width, expected):
    assert sparkline(curve, width) == expected


def test_ascii_levels_rise_like_the_blocks():
    curve = [math.sin(step / 3) for step in range(30)]
    drawn = sparkline(curve, 30)
    assert sparkline(curve, 30, ASCII_BLOCKS) == drawn.translate(str.maketrans(BLOCKS, ASCII_BLOCKS))
    assert ASCII_BLOCKS.isascii()
    assert len(set(ASCII_BLOCKS)) == len(BLOCKS)


@given(values, st.integers(1, 40))
def test_a_sparkline_has_a_column_for_each_value_up_to_its_width(curve, width):
    drawn = sparkline(curve, width)
    assert len(drawn) == min(len(curve), width)
    assert set(drawn) <= set(BLOCKS + " ")


@given(values)
def test_gaps_are_where_values_are_not_finite(curve):
    for value, character in zip(curve, sparkline(curve, 60), strict=True):
        assert (character == " ") == (value is None or not math.isfinite(value))


@given(st.lists(finite, min_size=2, max_size=60))
def test_larger_values_are_never_lower(curve):
    drawn = [BLOCKS.index(character) for character in sparkline(curve, 60)]
    levels = [level for _, level in sorted(zip(curve, drawn, strict=True))]
    assert levels == sorted(levels)


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=60, unique=True))
def test_the_smallest_is_the_lowest_and_the_largest_the_highest(curve):
    drawn = sparkline(curve, 60)
    assert drawn[curve.index(min(curve))] == BLOCKS[0]
    assert drawn[curve.index(max(curve))] == BLOCKS[-1]


def test_a_wide_range_of_positive_numbers_is_logarithmic():
    assert logarithmic([1, 30])
    assert not logarithmic([1, 29])
    assert not logarithmic([0, 30])
    assert not logarithmic([-1, 30])
    assert logarithmic([1, None, math.nan, 30])
    assert not logarithmic([None])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (0.0, "0"),
        (12, "12"),
        (0.123456, "0.1235"),
        (0.000123456, "1.23e-4"),
        (-123456.4, "-123456"),
        (999.96, "1000"),
        (999_999.4, "999999"),
        (999_999.6, "1.00e6"),
        (None, "-"),
        (math.nan, "-"),
        (-math.inf, "-"),
        (1e300, "1.00e300"),
    ],
)
def test_a_number_has_four_digits(value, expected):
    assert number(value) == expected


@given(st.floats(-1e99, 1e99).filter(lambda value: value == 0 or abs(value) > 1e-99))
def test_a_number_fits_its_column_and_is_near(value):
    assert len(number(value)) <= 9
    assert float(number(value)) == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (0.1234, "0.12 s"), (89, "89 s"), (120, "2 min"), (7200, "2.0 h"), (864000, "10.0 days")],
)
def test_a_duration_has_a_fitting_unit(seconds, expected):
    assert duration(seconds) == expected
