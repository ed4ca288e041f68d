"""The partition of the data, and plain tensors as examples."""

from __future__ import annotations

import re
from dataclasses import replace

import problems
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseless import EmpiricalRisk, cross_entropy
from noiseless.objective import Blocks, Selection, TensorExamples


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9), st.booleans())
def test_each_example_is_in_exactly_one_block(count, size, chunk, shuffled):
    order = torch.randperm(count, generator=problems.generator()) if shuffled else None
    blocks = Blocks(count, min(size, count), order)
    chunks = list(blocks.chunks(chunk))
    seen = torch.cat([c.index.flatten() for c in chunks])
    assert seen.tolist() == (list(range(count)) if order is None else order.tolist())
    assert all(1 <= len(c.index) <= chunk for c in chunks)
    sizes = [c.index.shape[1] for c in chunks for _ in c.index]
    assert sizes == blocks.sizes()
    assert len(sizes) == len(blocks)
    assert all(n == blocks.size for n in sizes[:-1])
    assert [c.first for c in chunks] == [sum(len(c.index) for c in chunks[:k]) for k in range(len(chunks))]


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
def test_the_partition_does_not_depend_on_the_chunk(count, size, chunk):
    blocks = Blocks(count, size)
    rows = [row.tolist() for c in blocks.chunks(chunk) for row in c.index]
    assert rows == [row.tolist() for c in blocks.chunks(1) for row in c.index]


def test_tensor_examples_take_an_index_of_any_shape():
    x, y = problems.points()
    examples = TensorExamples((x, y)).take(torch.tensor([[3, 1], [0, 3]]))
    assert torch.equal(examples[0], torch.stack((x[[3, 1]], x[[0, 3]])))
    assert torch.equal(examples[1], torch.stack((y[[3, 1]], y[[0, 3]])))


X, Y = torch.ones(4, 2), torch.zeros(4, dtype=torch.long)
NAN, INFINITE = X.clone(), torch.ones(4)
NAN[2, 1], INFINITE[3] = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:3]), "must have one length, but they have [4, 3]"),
        ((X, X[:1], Y), "must have one length, but they have [4, 1, 4]"),
        ((X[:0], Y[:0]), "the data set is empty"),
        ((torch.tensor(1.0), torch.tensor(2.0)), "the data set is empty"),
        ((X,), "at least 2 tensors, not 1"),
        ((), "at least 2 tensors, not 0"),
        ((NAN, Y), "tensor 0 of the data holds NaN or infinity, first in example 2"),
        ((X, INFINITE), "tensor 1 of the data holds NaN or infinity, first in example 3"),
    ],
)
def test_bad_data_are_refused(data, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        EmpiricalRisk(torch.nn.Linear(2, 2), cross_entropy, data)


@pytest.mark.parametrize("data", [X, X.numpy()])
def test_a_single_array_is_refused(data):
    # an array has `take` and a length, but its `take` gives elements
    with pytest.raises(ValueError, match="the model's inputs and a target"):
        EmpiricalRisk(torch.nn.Linear(2, 2), cross_entropy, data)


def test_an_empty_order_is_refused():
    with pytest.raises(ValueError, match="empty"):
        replace(Selection.of((X, Y)), order=torch.zeros(0, dtype=torch.long))
