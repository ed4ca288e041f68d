"""Keyed randomness: the generator's published vectors, ranges, independence of order, and torch's generators."""

from __future__ import annotations

import hashlib
import math

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless import keyed

WORD = st.integers(0, 2**32 - 1)


def _philox(counter: list[int], key: tuple[int, int]) -> list[int]:
    return keyed.philox(tuple(torch.tensor(c) for c in counter), key).tolist()


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Random123's kat_vectors, lines "philox4x32 10"
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_vectors(counter, key, expected):
    assert _philox(counter, key) == list(expected)
    assert oracles.philox(counter, key) == list(expected)


@settings(deadline=None, derandomize=True)
@given(st.lists(WORD, min_size=4, max_size=4), st.tuples(WORD, WORD))
def test_philox_equals_whole_number_arithmetic(counter, key):
    assert _philox(counter, key) == oracles.philox(counter, key)


def test_words_use_all_of_seed_step_and_index():
    base = keyed.words(3, "a", 5, torch.tensor(7))
    others = [
        keyed.words(4, "a", 5, torch.tensor(7)),
        keyed.words(3 + 2**32, "a", 5, torch.tensor(7)),
        keyed.words(3, "b", 5, torch.tensor(7)),
        keyed.words(3, "a", 6, torch.tensor(7)),
        keyed.words(3, "a", 5, torch.tensor(8)),
        keyed.words(3, "a", 5, torch.tensor(7 + 2**32)),
    ]
    assert len({tuple(w.tolist()) for w in [base, *others]}) == 7
    assert torch.equal(base, keyed.words(3, "a", 5, torch.tensor(7)))


def test_words_are_those_of_philox_with_seed_as_key_and_the_rest_as_counter():
    seed, step, index = 5 + 7 * 2**32, 11, 13 + 17 * 2**32
    stream = int.from_bytes(hashlib.sha256(b"shuffle").digest()[:4], "little")
    expected = oracles.philox([13, 17, step, stream], (5, 7))
    assert keyed.words(seed, "shuffle", step, torch.tensor(index)).tolist() == expected


@pytest.mark.parametrize("draw", [keyed.uniform, keyed.normal, lambda *key: keyed.integers(*key, 10)])
def test_draws_do_not_depend_on_order_or_batch(draw):
    index = torch.arange(60)
    expected = draw(1, "s", 2, index)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(1, "s", 2, order), expected[order])
    assert torch.equal(torch.cat([draw(1, "s", 2, part) for part in index.split(7)]), expected)
    assert torch.equal(draw(1, "s", 2, index.view(3, 4, 5)), expected.view(3, 4, 5))


def test_uniform_is_open_at_both_ends(monkeypatch):
    ends = torch.tensor([[0] * 4, [2**32 - 1] * 4])
    monkeypatch.setattr(keyed, "words", lambda *key: ends)
    low, high = keyed.uniform(0, "s", 0, torch.arange(2)).tolist()
    assert 0 < low < 2**-50
    assert 1 - 2**-50 < high < 1
    assert keyed.normal(0, "s", 0, torch.arange(2)).isfinite().all()


def test_uniform_is_uniform():
    n = 20_000
    drawn = keyed.uniform(0, "s", 0, torch.arange(n)).sort().values
    assert drawn.dtype == torch.float64
    # Kolmogorov: the largest distance to the true distribution exceeds 1.95 / sqrt(n) with probability 0.001
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    distance = max((drawn - steps[:-1]).abs().max(), (steps[1:] - drawn).abs().max())
    assert distance < 1.95 / math.sqrt(n)


def test_normal_is_standard_normal():
    n = 20_000
    drawn = keyed.normal(0, "s", 0, torch.arange(n)).sort().values
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    cumulated = torch.special.ndtr(drawn)
    assert max((cumulated - steps[:-1]).abs().max(), (steps[1:] - cumulated).abs().max()) < 1.95 / math.sqrt(n)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 2**64 - 1), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_permutation_is_a_permutation(seed, count, step):
    order = keyed.permutation(seed, "shuffle", step, count)
    assert order.sort().values.tolist() == list(range(count))


def test_a_seed_of_torchs_generators_holds_63_bits_of_two_words():
    index = torch.arange(1000)
    seeds, random_words = keyed.torch_seeds(3, "a", 1, index), keyed.words(3, "a", 1, index)
    assert torch.equal(seeds // 2**31, random_words[:, 0])
    assert torch.equal(seeds % 2**31, random_words[:, 1] // 2)


def test_a_long_permutation_sorts_the_words_of_all_its_numbers():
    words = keyed.words(3, "shuffle", 1, torch.arange(150_000))  # more than two of the parts in which they are drawn
    expected = torch.argsort((words[:, 0] << 31) | (words[:, 1] >> 1), stable=True)
    assert torch.equal(keyed.permutation(3, "shuffle", 1, 150_000), expected)


def test_permutations_differ_by_seed_stream_and_step():
    orders = [keyed.permutation(*key, 50) for key in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))]
    assert len({tuple(order.tolist()) for order in orders}) == 4


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 2**31))
def test_integers_lie_in_range(high):
    drawn = keyed.integers(0, "i", 0, torch.arange(200), high)
    assert 0 <= int(drawn.min()) <= int(drawn.max()) < high


def test_integers_are_uniform():
    n, high = 20_000, 8
    counts = keyed.integers(0, "i", 0, torch.arange(n), high).bincount(minlength=high).double()
    # each count is binomial with variance n p (1 - p): five standard deviations
    assert (counts - n / high).abs().max() < 5 * math.sqrt(n / high * (1 - 1 / high))


def test_streams_are_uncorrelated():
    n = 20_000
    a, b = (keyed.normal(0, stream, 0, torch.arange(n)) for stream in ("a", "b"))
    assert abs(float((a * b).mean())) < 5 / math.sqrt(n)  # the product has mean 0 and variance 1: five deviations


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=rf"seed must lie in .*not {seed}"):
        keyed.words(seed, "s", 0, torch.arange(1))


@pytest.mark.parametrize("step", [-1, 2**32])
def test_a_step_out_of_range_is_refused(step):
    with pytest.raises(ValueError, match=rf"step must lie in .*not {step}"):
        keyed.words(0, "s", step, torch.arange(1))


def test_the_largest_seed_and_step_are_accepted():
    assert keyed.words(2**64 - 1, "s", 2**32 - 1, torch.arange(3)).shape == (3, 4)


def _drawn_inside(*key: object) -> torch.Tensor:
    with keyed.torch_generators(*key, torch.device("cpu")):
        return torch.rand(4)


def test_torch_generators_are_keyed_and_restored():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    base = _drawn_inside(1, "m", 2, 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(_drawn_inside(1, "m", 2, 3), base)
    for other in ((0, "m", 2, 3), (1, "n", 2, 3), (1, "m", 0, 3), (1, "m", 2, 0)):
        assert not torch.equal(_drawn_inside(*other), base)


def test_torch_generators_are_restored_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), keyed.torch_generators(0, "m", 0, 0, torch.device("cpu")):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_on_the_cpu_no_accelerator_is_seeded(monkeypatch):
    # torch.manual_seed seeds every GPU too, and only forked generators are restored
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    _drawn_inside(0, "m", 0, 0)
    assert seeded == []
