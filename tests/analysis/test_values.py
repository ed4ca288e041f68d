"""Results of analyses are frozen values."""

from values import by_identity, mutable

from noiseless import analysis


def test_values_are_frozen_and_compared_by_value():
    assert mutable(analysis) == set()
    assert by_identity(analysis) == set()
