"""What a line search, a transform or a step returns is a frozen value."""

from values import by_identity, mutable

from noiseless import optim


def test_values_are_frozen_and_compared_by_value():
    assert mutable(optim) == set()
    assert by_identity(optim) == set()
