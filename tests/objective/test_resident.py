"""Bins that stay on a device: the bits of a CPU's, and no number that is read while terms are added."""

from __future__ import annotations

import math
import struct
from itertools import pairwise

import problems
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless.objective import ExactSum, bins, kernels, resident

ONE = torch.ones(1, dtype=torch.float64)
ANY = st.floats(width=64) | st.floats(-1e3, 1e3) | st.sampled_from([math.inf, -math.inf, math.nan, 5e-324, 1e308, -0.0])


def sums(groups, weights, stays):
    """A sum of the terms of each group at once; `stays`: as on a device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resident, "stays", lambda device: stays)
        total = ExactSum(groups[0].shape[1])
        for terms, its_weights in zip(groups, weights, strict=True):
            total.add(terms, its_weights)
        total._settle()
    return total


def bits(values):
    return values.view(torch.int64).tolist()


def assert_same(one, other):
    assert one._top == other._top
    assert bits(one.value()) == bits(other.value())


def whole(value):
    """A weight as a sweep has it: a number of examples."""
    return torch.tensor(value, dtype=torch.float64)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.tuples(ANY, ANY, ANY), min_size=1, max_size=8), st.data())
def test_the_bits_are_those_of_a_cpu(rows, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows)), max_size=3)) | {0, len(rows)})
    weights = [float(data.draw(st.integers(0, 2**20))) for _ in rows]
    groups = [torch.tensor(rows[a:b], dtype=torch.float64) for a, b in pairwise(cuts)]
    cut = [whole(weights[a:b]) for a, b in pairwise(cuts)]
    on_cpu, on_device = sums(groups, cut, False), sums(groups, cut, True)
    assert_same(on_device, on_cpu)
    single = [torch.tensor([row], dtype=torch.float64) for row in rows]
    assert_same(sums(single, [whole([w]) for w in weights], True), on_cpu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_long_vectors_of_growing_terms(dtype):
    """Longer than a slice; each chunk of three terms raises the bins, and there is an infinity in two elements."""
    generator = problems.generator()
    length = 2 * bins.slice_of(torch.device("cpu")) + 5
    groups = [torch.randn(3, length, generator=generator).mul(2.0 ** (17 * k - 60)).to(dtype) for k in range(6)]
    groups[1][0, 7], groups[4][2, 7], groups[2][1, 11] = math.inf, -math.inf, math.inf
    weights = [whole([3.0, 1.0, 128.0])] * 6
    assert_same(sums(groups, weights, True), sums(groups, weights, False))


def test_each_element_may_have_its_own_weight():
    generator = problems.generator()
    groups = [torch.randn(4, 50, generator=generator) for _ in range(3)]
    weights = [torch.rand(4, 50, dtype=torch.float64, generator=generator) for _ in range(3)]
    assert_same(sums(groups, weights, True), sums(groups, weights, False))


def test_a_sum_goes_on_after_it_was_read_and_merged(monkeypatch):
    monkeypatch.setattr(resident, "stays", lambda device: True)
    total, other = ExactSum(3), ExactSum(3)
    total.add(torch.tensor([[1.0, 1e10, math.inf], [1.0, 2.0, 3.0]], dtype=torch.float64), ONE.repeat(2))
    assert total.value().tolist() == [2.0, 1e10 + 2, math.inf]
    kept = ExactSum(3).filled({name: tensor.clone() for name, tensor in total.tensors().items()})
    for one in (total, kept):
        one.add(torch.tensor([[0.5, 0.0, 1.0]]), ONE)
    other.add(torch.tensor([[0.0, 1.0, -math.inf], [0.0, 0.0, 1.0]]), ONE.repeat(2))
    for one in (total, kept):
        one.merge(other)
        assert one.value()[0] == 2.5
        assert one.value()[2].isnan()
    assert bits(total.value()) == bits(kept.value())


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(0, 2**63 - 1))
def test_the_place_of_the_highest_bin(pattern):
    largest = struct.unpack("<d", struct.pack("<q", pattern))[0]  # each sign-free pattern of 64 bits
    if math.isfinite(largest):
        assert int(resident.top_of(whole(largest))) == bins.top_of(largest)


def test_no_weight_may_be_missing(monkeypatch):
    monkeypatch.setattr(resident, "stays", lambda device: True)
    with pytest.raises(ValueError, match="argument"):
        ExactSum(1).add(torch.ones(3, 1), ONE)


def test_nothing_is_read_while_terms_are_added():
    """Tensors of torch's meta device have no values: what reads one raises an error."""
    device = torch.device("meta")
    total = ExactSum(5, device)
    for rows in (1, 1, 4):
        total.add(torch.empty(rows, 5, device=device), torch.empty(rows, dtype=torch.float64, device=device))
    with pytest.raises(RuntimeError, match="meta"):
        total.value()


def test_the_two_loops_are_those_of_torch_without_a_gpu():  # test_fused has those of Triton
    assert kernels.chosen(torch.device("cpu")) == (kernels.largest, kernels.deposit)
