"""Verdicts: Holm's adjustment, and two one-sided tests of equivalence at known numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless.study.comparison import Comparison, holm, verdict


def test_holm_keeps_the_order_of_the_comparisons():
    # ascending: 0.01 * 3, 0.03 * 2, and 0.04 * 1, which may not be below the one before
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.2]) == [0.2]
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def comparison_of(difference, standard_error):
    """A comparison whose t is all but normal."""
    return Comparison(difference, 0.0, standard_error**2, 0.0, standard_error**2, 1e9, True)


@pytest.mark.parametrize(
    ("difference", "margin", "p", "equivalence_p", "expected"),
    [
        # the standard error is 0.2; P(normal > 1.5, 2, 2.5, 3, 4) = 0.0668, 0.0228, 0.00621, 0.00135, 0.0000317
        (0.1, 0.5, 0.617, 0.0228, "equivalent"),  # (0.5 - 0.1) / 0.2 = 2
        (-0.1, 0.5, 0.617, 0.0228, "equivalent"),
        (0.1, 0.4, 0.617, 0.0668, "undecided"),
        (0.5, 1.0, 0.0124, 0.00621, "different, but within 1"),
        (0.8, 1.0, 0.0000633, 0.1587, "different"),
        (-0.8, 0.5, 0.0000633, 0.9332, "different"),
    ],
)
def test_verdicts_at_known_numbers(difference, margin, p, equivalence_p, expected):
    comparison = comparison_of(difference, 0.2)
    assert comparison.p == pytest.approx(p, rel=5e-3)  # of three digits
    assert comparison.equivalence(margin) == pytest.approx(equivalence_p, rel=5e-3)
    assert verdict(comparison.p, comparison.equivalence(margin), margin, 0.95) == expected


def test_a_difference_counts_after_holm_and_at_the_given_confidence():
    assert verdict(0.03, 0.9, 0.5, 0.95) == "different"
    assert verdict(0.06, 0.9, 0.5, 0.95) == "undecided"
    assert verdict(0.06, 0.9, 0.5, 0.9) == "different"
    assert verdict(0.03, 0.9, 0.5, 0.99) == "undecided"


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.floats(-3, 3), st.floats(0.01, 2), st.floats(1, 100), st.floats(0.01, 3))
def test_equivalence_is_the_90_percent_interval_within_the_margin(difference, error, degrees, margin):
    result = Comparison(difference, 0.0, error**2, 0.0, error**2, degrees, True)
    low, high = result.interval(0.9)
    if min(abs(margin - high), abs(margin + low)) > 1e-9:  # not where rounding decides
        assert (result.equivalence(margin) < 0.05) == (-margin < low and high < margin)
