"""The exact sum against exact rational arithmetic: any order, any split, any magnitude, the stated bound."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless.objective import ExactSum
from noiseless.objective.exactsum import MOST_TERMS, align, exact_total

WIDE = st.floats(min_value=-1e300, max_value=1e300, allow_subnormal=True)
DENORMAL = st.integers(-50, 50).map(lambda k: k * 5e-324)
POWERS = st.builds(math.ldexp, st.sampled_from([-1.0, -0.5, 1.0, 1.0 + 2**-52, 1.5]), st.integers(-1074, 990))
TERMS = st.one_of(
    st.lists(WIDE, min_size=1, max_size=60),
    st.lists(DENORMAL, min_size=1, max_size=60),
    st.lists(POWERS, min_size=1, max_size=60),
    st.lists(WIDE, min_size=1, max_size=30).map(lambda terms: terms + [-x for x in terms]),  # cancels to nothing
    st.lists(st.one_of(WIDE, DENORMAL, POWERS), min_size=1, max_size=60),
)


def _sum(terms: list[float], parts: int, shuffle: random.Random) -> ExactSum:
    """The sum of the terms in a random order, from partial sums over random parts that are merged in a random order."""
    terms = shuffle.sample(terms, len(terms))
    cuts = sorted(shuffle.randint(0, len(terms)) for _ in range(parts - 1))
    sums = []
    for start, end in zip([0, *cuts], [*cuts, len(terms)], strict=True):
        partial = ExactSum(1)
        column = torch.tensor(terms[start:end], dtype=torch.float64).reshape(-1, 1)
        partial.add(column, torch.ones(end - start))
        sums.append(partial)
    shuffle.shuffle(sums)
    for other in sums[1:]:
        sums[0].merge(other)
    return sums[0]


def _bits(value: float) -> str:
    return value.hex()


@settings(max_examples=400, deadline=None)
@given(TERMS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_any_order_and_split_gives_the_same_bits_within_the_bound(terms, parts, shuffle):
    values = {_bits(_sum(terms, parts, shuffle).value().item()) for _ in range(3)}
    values.add(_bits(_sum(terms, 1, random.Random(0)).value().item()))
    assert len(values) == 1
    result = Fraction(float.fromhex(values.pop()))
    exact = sum(map(Fraction, terms))
    largest = max(map(abs, terms))
    # the docstring's bound; half the smallest float64 is what any rounded result may be off by
    assert abs(result - exact) <= len(terms) * Fraction(largest) / 2**53 + Fraction(5e-324) / 2


def test_twenty_thousand_terms_equal_fsum_in_any_order():
    shuffle = random.Random(1)
    terms = [shuffle.uniform(-1, 1) * 10.0 ** shuffle.uniform(-12, 0) for _ in range(20_000)]
    values = {_sum(terms, parts, shuffle).value().item() for parts in (1, 9)}
    # all terms keep bits down to 2**-64 of the largest, so 20,000 of them are off by at most 2**-49 times 2**-53 of n;
    # fsum is the correctly rounded sum, and the sum here is of the size of 1
    assert len(values) == 1
    assert values.pop() == pytest.approx(math.fsum(terms), abs=20_000 * 2.0**-64 + 2.0**-50)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weighted_sums_of_vectors_longer_than_a_slice_are_within_the_bound(dtype):
    generator = torch.Generator().manual_seed(0)
    scale = 10.0 ** torch.randint(-20, 20, (7, 40_000), generator=generator).double()
    terms = (torch.randn(7, 40_000, generator=generator).double() * scale).to(dtype)
    weights = torch.tensor([128, 128, 1, 77, 128, 3, 100], dtype=torch.float64)
    forward, backward = ExactSum(40_000), ExactSum(40_000)
    forward.add(terms, weights)
    for k in reversed(range(7)):
        backward.add(terms[k : k + 1], weights[k : k + 1])
    assert torch.equal(forward.value(), backward.value())
    products = terms.double() * weights[:, None]
    bound = 7 * 2.0**-53 * products.abs().max().item()
    for element in (0, 16_383, 16_384, 39_999):  # on both sides of the border between two slices
        exact = math.fsum(products[:, element].tolist())
        assert abs(forward.value()[element].item() - exact) <= bound


def test_a_plain_float64_sum_depends_on_the_order_and_the_exact_sum_does_not():
    terms = torch.tensor([1.0, 2.0**-53, 2.0**-53], dtype=torch.float64)
    assert terms[0] + terms[1] + terms[2] != terms[1] + terms[2] + terms[0]  # why there is an exact sum
    results = set()
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        exact_sum = ExactSum(1)
        exact_sum.add(terms[order, None], torch.ones(3))
        results.add(exact_sum.value().item())
    assert results == {1.0 + 2.0**-52}  # the exact sum, a float64


@pytest.mark.parametrize(
    ("special", "expected"),
    [([math.inf], math.inf), ([-math.inf], -math.inf), ([math.inf, -math.inf], math.nan), ([math.nan], math.nan),
     ([-math.nan, math.inf], math.nan)],
)  # fmt: skip
def test_infinities_and_nan_do_not_depend_on_the_order(special, expected):
    bits = set()
    for seed in range(20):
        shuffle = random.Random(seed)
        value = _sum([*special, 1.0, -1e300, 5e-324], shuffle.randint(1, 5), shuffle).value()
        bits.add(value.view(torch.int64).item())
        assert value.item() == expected or (math.isnan(expected) and value.isnan())
    assert len(bits) == 1  # of a NaN, too


def test_an_infinity_changes_only_its_own_element():
    terms = torch.tensor([[1.0, math.inf], [2.0, 5.0]], dtype=torch.float64)
    exact_sum = ExactSum(2)
    exact_sum.add(terms, torch.ones(2))
    assert exact_sum.value().tolist() == [3.0, math.inf]


def test_too_many_terms_are_refused():
    exact_sum = ExactSum(1)
    exact_sum._terms = MOST_TERMS  # as if so many had been added
    with pytest.raises(ValueError, match="larger blocks"):
        exact_sum.add(torch.ones(1, 1), torch.ones(1))


def test_the_most_terms_of_the_largest_size_are_exact():
    # 2**20 times the largest part of a bin: the bound on what a bin can hold
    exact_sum = ExactSum(1)
    exact_sum.add(torch.full((1, 1), 2.0**31, dtype=torch.float64), torch.ones(1))
    for _ in range(20):  # doubles the number of terms
        exact_sum.merge(exact_sum)
    assert exact_sum.value().item() == 2.0**51


@given(
    st.lists(st.one_of(WIDE.map(lambda x: x / 2**10), st.sampled_from([math.inf, -math.inf, math.nan])), max_size=30)
)
def test_the_total_of_scalars_is_fsum(values):
    total = exact_total(torch.tensor(values, dtype=torch.float64))
    special = [v for v in values if not math.isfinite(v)]
    expected = math.fsum(values) if not special else sum(special)
    assert total == expected or (math.isnan(total) and math.isnan(expected))


def test_aligned_sums_of_slices_have_the_bits_of_the_whole_vector():
    terms = torch.tensor([[2.0**60, 2.0**-40, 1.0], [-3.0, 2.0**-41, math.inf]])

    def summed(part):
        total = ExactSum(part.shape[1])
        for k in range(len(part)):
            total.add(part[k : k + 1], torch.ones(1))
        return total

    slices = [summed(terms[:, :1]), summed(terms[:, 1:]), ExactSum(0)]
    assert slices[1].value()[0] > 0  # by itself, a slice of small terms keeps more of their bits
    align(slices, lambda tensors: None)
    whole = summed(terms).value()
    assert whole.tolist() == [2.0**60 - 3, 0.0, math.inf]
    assert torch.equal(torch.cat([one.value() for one in slices]), whole)
