"""The exact sum against fractions and sums in Python."""

from __future__ import annotations

import math
from fractions import Fraction

import problems
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless.objective import ExactSum, bins


def test_a_weighted_sum_equals_that_of_fractions():
    rng = problems.generator()
    terms = torch.randn(50, 4, generator=rng) * 2.0 ** torch.randint(-12, 13, (50, 4), generator=rng)  # float32
    weights = torch.arange(1.0, 51.0, dtype=torch.float64)
    total = ExactSum(4)
    total.add(terms[:20], weights[:20])
    total.add(terms[20:], weights[20:])
    expected = [
        float(sum(Fraction(float(t)) * Fraction(float(w)) for t, w in zip(column, weights, strict=True)))
        for column in terms.T
    ]
    assert total.value().dtype == torch.float64
    # the products, of 24 + 6 bits, are exact and multiples of the lowest bin's unit, so the sum is rounded once
    assert total.value().tolist() == expected
    sequential = (terms.double() * weights[:, None]).cumsum(0)[-1]
    assert sequential.tolist() != expected  # an ordinary float64 sum is rounded 50 times


def test_terms_that_float32_would_lose_are_counted():
    total = ExactSum(1)
    total.add(torch.tensor([[1e8], [1.0], [-1e8]]), torch.ones(3, dtype=torch.float64))
    assert total.value().item() == 1.0  # in float32, 1e8 + 1 is 1e8


def test_each_element_may_have_its_own_weight():
    total = ExactSum(2)
    total.add(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 10.0], [100.0, 1000.0]]).double())
    assert total.value().tolist() == [301.0, 4020.0]


def test_the_value_is_a_copy():
    total = ExactSum(1)
    total.value().add_(1)
    assert total.value().item() == 0.0


def test_another_number_of_weights_than_of_terms_is_refused():
    with pytest.raises(ValueError, match="argument"):
        ExactSum(1).add(torch.ones(3, 1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("exponent", [-1074, -1000, -65, -64, -33, -1, 0, 1, 30, 31, 32, 63, 64, 1000, 1023])
@pytest.mark.parametrize("mantissa", [1.0, 1.0 + 2**-52, 1.5, 2.0 - 2**-52])
def test_the_highest_bin_is_the_lowest_that_holds_the_largest_term(exponent, mantissa):
    largest = math.ldexp(mantissa, exponent)
    top = bins.top_of(largest)
    # u_i = 2**(32 i): bin I holds what is at most u_(I+1) / 2
    assert Fraction(largest) <= Fraction(2) ** (32 * (top + 1)) / 2
    assert top == bins.LOWEST or Fraction(largest) > Fraction(2) ** (32 * top) / 2


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(width=64) | st.floats(-1e-3, 1e3), min_size=1, max_size=5), st.integers(0, 2**20))
def test_a_sum_of_one_term_has_the_bits_of_one_in_bins(values, weight):
    """A single term is kept as it is; merging with an empty sum brings it into bins."""
    term, weights = torch.tensor([values], dtype=torch.float64), torch.tensor([float(weight)], dtype=torch.float64)
    alone, binned = ExactSum(len(values)), ExactSum(len(values))
    alone.add(term, weights)
    binned.add(term, weights)
    binned.merge(ExactSum(len(values)))
    assert alone.value().tolist() == pytest.approx(binned.value().tolist(), rel=0, abs=0, nan_ok=True)
    assert alone.value().view(torch.int64).tolist() == binned.value().view(torch.int64).tolist()
    other = torch.tensor([values[::-1]], dtype=torch.float64)
    for one in (alone, binned):
        one.add(other, weights)
    assert alone.value().view(torch.int64).tolist() == binned.value().view(torch.int64).tolist()


def test_a_term_that_changes_after_it_was_added_changes_no_sum():
    term, one = torch.ones(1, 3), torch.ones(1, dtype=torch.float64)
    summed = ExactSum(3)
    summed.add(term, one)
    term.zero_()
    assert summed.value().tolist() == [1.0, 1.0, 1.0]
