"""Data sets of single examples that test files share: eleven points in three classes, and sequences of tokens."""

from __future__ import annotations

import problems
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from noiseless import EmpiricalRisk, Execution, cross_entropy

X, Y = problems.points()
BLOCK = 4


class Points(Dataset):
    """torch's map style; it counts what is loaded."""

    def __init__(self, change=lambda number, x: x):
        self.change, self.loaded = change, []

    def __len__(self):
        return len(X)

    def __getitem__(self, number):
        self.loaded.append(number)
        return self.change(number, X[number].clone()), int(Y[number])


def risk_of(data, chunk=1, module=None, **settings):
    module = module or problems.perceptron()
    return EmpiricalRisk(module, cross_entropy, data, block=BLOCK, execution=Execution(chunk=chunk), **settings)


def loader(dataset, **settings):
    return DataLoader(dataset, **{"batch_size": 3, "shuffle": True, "num_workers": 2, **settings})


# sequences

WORDS = [torch.arange(1, 2 + k % 4) for k in range(10)]
LABELS = torch.arange(10) % 3


def padded(items):
    """Token numbers, padded with 0 to the longest of a block."""
    words, labels = zip(*items, strict=True)
    return {"words": nn.utils.rnn.pad_sequence(words, batch_first=True), "labels": torch.stack(labels)}


SEQUENCES = list(zip(WORDS, LABELS, strict=True))
