"""Partial sums: merged with another worker's, saved, and continued only by the sweep that they belong to."""

from __future__ import annotations

import math
import threading

import pytest
import torch

from noiseless.objective import ExactSum
from noiseless.objective.exactsum import reduce
from noiseless.objective.partial import Partial, Report

CPU = torch.device("cpu")


def empty(vectors=None, scalars=None, blocks=5, chunks=3):
    return Partial.empty(vectors or {"gradient": 2}, scalars or {"loss": 1, "square": 2}, blocks, chunks, CPU)


def report(*values):
    """Two blocks of a chunk: vectors (v, 1), a loss of v, squares of v and 10 v."""
    terms = torch.tensor([[v, 1.0] for v in values])
    numbers = torch.tensor(values, dtype=torch.float64)
    weights = torch.ones(len(values), dtype=torch.float64)
    return Report({"gradient": (terms, weights)}, {"loss": numbers, "square": torch.stack((numbers, 10 * numbers))})


def test_two_halves_merge_to_the_sum():
    one, other = empty(), empty()
    one.add(0, 0, report(1.0, 2.0))
    other.add(1, 2, report(3.0, 4.0))
    assert not one.overlaps(other) and not one.complete
    one.merge(other)
    assert other.overlaps(one)
    one.add(2, 4, report(5.0))
    assert one.complete
    sums = one.sums()
    assert sums.vectors["gradient"].tolist() == [15.0, 5.0]
    assert sums.scalars["loss"].tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]
    assert sums.scalars["square"].tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 40.0, 50.0]]


def test_saved_sums_are_continued():
    saved = empty()
    saved.add(1, 2, report(3.0, 4.0))
    continued = empty().filled(saved.tensors())
    assert continued.done.tolist() == [0, 1, 0]
    continued.add(0, 0, report(1.0, 2.0))
    assert continued.sums().vectors["gradient"].tolist() == [10.0, 4.0]
    assert continued.sums().scalars["loss"].tolist() == [[1.0, 2.0, 3.0, 4.0, 0.0]]


@pytest.mark.parametrize(
    "other",
    [
        {"vectors": {"gradient": 3}},
        {"vectors": {"gradient": 2, "statistics": 1}},
        {"scalars": {"loss": 1}},
        {"blocks": 6},
        {"chunks": 2},
        {"chunks": 4},
    ],
    ids=str,
)
def test_sums_of_another_sweep_are_not_continued(other):
    assert empty(**other).filled(empty().tensors()) is None


@pytest.mark.parametrize("missing", ["scalars", "done"])
def test_sums_without_some_tensors_are_not_continued(missing):
    tensors = empty().tensors()
    del tensors[missing]
    assert empty().filled(tensors) is None


def reduced_by_two_workers(first, second):
    """The values that two workers, as threads, get from `reduce`."""
    barrier, slots = threading.Barrier(2), [[], []]

    def together(rank, combine):
        def exchange(tensors):
            slots[rank] = [t.clone() for t in tensors]
            barrier.wait()
            combined = [combine(a, b) for a, b in zip(*slots, strict=True)]
            barrier.wait()
            for tensor, value in zip(tensors, combined, strict=True):
                tensor.copy_(value)

        return exchange

    def work(rank, summed):
        reduce([summed], together(rank, torch.maximum), together(rank, torch.add))

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return first.value(), second.value()


@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_value_that_is_not_finite_at_one_worker_reaches_both(special, rank):
    sums = ExactSum(2), ExactSum(2)
    weights = torch.ones(1, dtype=torch.float64)
    sums[rank].add(torch.tensor([[special, 1e30]]), weights)
    sums[1 - rank].add(torch.tensor([[2.0, 1e-30]]), weights)
    for value in reduced_by_two_workers(*sums):
        assert str(value[0].item()) == str(special)
        assert value[1].item() == float(torch.tensor(1e30)) + float(torch.tensor(1e-30))
