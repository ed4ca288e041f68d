"""Data sets that have no fixed examples, or none that a module can take: refused in one sentence."""

from __future__ import annotations

import re

import pytest
import torch
from items import SEQUENCES, Points, X, Y, padded, risk_of
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from noiseless import DatasetExamples


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Mapped(Dataset):
    """Without a length."""

    def __getitem__(self, number):
        return X[number], Y[number]


STREAM = "a sum over the full data set needs the same examples, by their numbers, at each sweep: give a data set with"
DEFAULT = "torch's default_collate cannot put examples 0, 1, 2, 3 of the data set together"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Stream(), f"(Stream) is an IterableDataset, but {STREAM}"),
        (DataLoader(Stream(), batch_size=3), f"(Stream) is an IterableDataset, but {STREAM}"),
        (DataLoader(Stream(), batch_size=None), f"(Stream) is an IterableDataset, but {STREAM}"),
        (zip(X, Y, strict=True), f"(zip) has no __len__ and no __getitem__, but {STREAM}"),
        ((pair for pair in SEQUENCES), f"(generator) has no __len__ and no __getitem__, but {STREAM}"),
        (Mapped(), f"(Mapped) has no __len__, but {STREAM}"),
        (Subset(Points(), []), "the data set is empty"),
        ([X[0].numpy()], "examples 0 of the data set, collated, are of type Tensor, but must be (input, ..., target)"),
        ([(x,) for x in X], "a tuple of at least 2 tensors, not 1"),
        ([{"x": x, "y": y} for x, y in zip(X, Y, strict=True)], "one target, called labels or label or target or"),
        (
            [{"x": [1, 2], "labels": 0}],
            "x of the data set's examples are lists, not tensors: give tensors (for Hugging",
        ),
        ([{"x": "text", "labels": 0}], "'x'[0] of the data is of type str, but inputs and target must be tensors"),
        ([(x, object()) for x in X], "torch's default_collate cannot put examples 0 of the data set together (default"),
        (DataLoader(Points(), batch_size=None, collate_fn=padded), "batch_size=None collates single examples"),
        ("text", "a tuple of at least 2 tensors, not str"),
        (7, "a tuple of at least 2 tensors, not int"),
    ],
)
def test_data_that_are_no_fixed_examples_are_refused(data, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        risk_of(data)


def test_random_augmentation_is_refused():
    message = (
        r"example \d of the data set is another one when it is taken again, .* draw it from a torch.Generator that"
    )
    with pytest.raises(ValueError, match=message):
        risk_of(Points(lambda number, x: x + torch.rand(3)))
    flips = Points(lambda number, x: x.flip(0) if torch.rand(()) < 0.5 else x)
    torch.manual_seed(0)
    refused = 0
    for _ in range(20):  # 0.5**8 of them pass
        try:
            risk_of(flips)
        except ValueError:
            refused += 1
    assert refused >= 18
    with pytest.raises(ValueError, match=message):  # random masks
        DatasetExamples(Points(), collate=lambda items: (torch.rand(len(items)), torch.zeros(len(items))))
    keyed = Points(lambda number, x: x + torch.rand(3, generator=torch.Generator().manual_seed(number)))
    assert torch.equal(risk_of(keyed).evaluate().gradient, risk_of(keyed).evaluate().gradient)


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_are_not_finite_are_refused_with_the_example(workers):
    spoiled = Points(lambda number, x: x.fill_(float("inf")) if number == 5 else x)
    risk = risk_of(DatasetExamples(spoiled, workers=workers))
    with pytest.raises(ValueError, match=re.escape("tensor 0 of the data holds NaN or infinity, in example 5")):
        risk.evaluate()


@pytest.mark.parametrize("workers", [0, 1])
def test_examples_of_several_sizes_need_a_collate(workers):
    examples = DatasetExamples([(word.double(), label) for word, label in SEQUENCES], workers=workers)
    with pytest.raises(
        ValueError, match=re.escape(DEFAULT) + r" \(stack expects .*\): give DatasetExamples\(data, collate=\.\.\.\)"
    ):
        risk_of(examples).evaluate()


@pytest.mark.parametrize("workers", [-1, 1.5, True])
def test_workers_must_be_a_number(workers):
    with pytest.raises(ValueError, match=f"workers must be a number of processes, 0 for none, not {workers}"):
        DatasetExamples(Points(), workers=workers)
