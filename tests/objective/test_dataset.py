"""Data sets of single examples: the bits of the same examples as tensors, loaded by any number of processes."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import oracles
import problems
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from noiseless import DatasetExamples, EmpiricalRisk, Execution, Selection, cross_entropy
from noiseless.objective import TensorExamples

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


class Rows:
    """The interface of Hugging Face's `datasets.Dataset`: items are dicts, `take` gives the first rows."""

    column_names = ("x", "labels")

    def __len__(self):
        return len(X)

    def __getitem__(self, number):
        return {"x": X[number], "labels": Y[number]}

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]

    def take(self, n):
        return self


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = problems.perceptron()

    def forward(self, x):
        return self.module(x)


def risk_of(data, chunk=1, module=None, **settings):
    module = module or problems.perceptron()
    return EmpiricalRisk(module, cross_entropy, data, block=BLOCK, execution=Execution(chunk=chunk), **settings)


def loader(dataset, **settings):
    return DataLoader(dataset, **{"batch_size": 3, "shuffle": True, "num_workers": 2, **settings})


DATA = {
    "map style": Points,
    "list of pairs": lambda: [(x, y) for x, y in zip(X, Y, strict=True)],
    "list of dicts": lambda: [{"x": x, "target": y} for x, y in zip(X, Y, strict=True)],
    "rows with names": Rows,
    "subset": lambda: Subset(Points(), range(len(X))),
    "DataLoader": lambda: loader(Points()),
    "DataLoader of a batch sampler": lambda: DataLoader(Points(), batch_sampler=[[0, 1], [2]]),
    "DataLoader without batches": lambda: DataLoader(Points(), batch_size=None),
    "DataLoader of tensors": lambda: loader(TensorDataset(X, Y)),
    "tensors": lambda: TensorDataset(X, Y),
    "workers": lambda: DatasetExamples(Points(), workers=2),
}


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_a_data_set_has_the_bits_of_its_tensors(data, chunk):
    risk, expected = risk_of(data(), chunk, Named()), risk_of((X, Y), chunk)
    for _ in range(2):
        assert torch.equal(risk.evaluate().gradient, expected.evaluate().gradient)
    assert risk.measure() == expected.measure()
    V = torch.ones(1, len(risk.space), dtype=torch.float64)
    assert torch.equal(risk.hvp(V), expected.hvp(V))
    order = torch.tensor([7, 2, 9, 0, 5, 1])
    evaluations = [r.at(replace(r.selection, order=order)).evaluate() for r in (risk, expected)]
    assert torch.equal(evaluations[0].gradient, evaluations[1].gradient)
    assert evaluations[0].loss == evaluations[1].loss


@pytest.mark.parametrize("data", [TensorDataset(X, Y), loader(TensorDataset(X, Y))])
def test_tensors_in_a_data_set_are_used_as_tensors(data):
    assert isinstance(risk_of(data).selection.examples, TensorExamples)


def test_take_collates_the_last_axis():
    examples = DatasetExamples(Points())
    x, y = examples.take(torch.tensor([[[3, 1], [0, 3]]]))
    assert torch.equal(x, X[torch.tensor([[[3, 1], [0, 3]]])])
    assert torch.equal(y, Y[torch.tensor([[[3, 1], [0, 3]]])])
    assert torch.equal(examples.take(torch.tensor([2, 8]))[0], X[[2, 8]])


def test_a_changed_risk_does_not_check_the_data_again():
    dataset = Points()
    risk = risk_of(dataset)
    dataset.loaded.clear()
    replace(risk, norm_block=2)
    assert dataset.loaded == []
    risk.evaluate()
    assert dataset.loaded == list(range(len(X)))


# collate

WORDS = [torch.arange(1, 2 + k % 4) for k in range(10)]
LABELS = torch.arange(10) % 3


def padded(items):
    """Token numbers, padded with 0 to the longest of a block."""
    words, labels = zip(*items, strict=True)
    return {"words": nn.utils.rnn.pad_sequence(words, batch_first=True), "labels": torch.stack(labels)}


class Bag(nn.Module):
    """Logits from the mean embedding of the tokens that are not padding."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(6, 3), nn.Linear(3, 3)
        problems.fill(self)

    def forward(self, words):
        kept = (words > 0)[..., None]
        return self.head((self.table(words) * kept).sum(1) / kept.sum(1))


SEQUENCES = list(zip(WORDS, LABELS, strict=True))


@pytest.mark.parametrize(
    "data", [(SEQUENCES, padded), (DataLoader(SEQUENCES, collate_fn=padded), None)], ids=["collate", "DataLoader"]
)
def test_padded_sequences_agree_with_autograd(data):
    risk = risk_of(data[0], module=Bag(), collate=data[1])
    module = Bag()
    losses = [F.cross_entropy(module(words[None]), label[None]) for words, label in SEQUENCES]
    expected = oracles.flat(torch.autograd.grad(torch.stack(losses).mean(), list(module.parameters())))
    torch.testing.assert_close(risk.evaluate().gradient, expected, **oracles.ROUNDING)


def test_blocks_of_several_shapes_are_computed_alone():
    examples = DatasetExamples(list(zip(WORDS[::-1], LABELS, strict=True)), padded)
    with pytest.raises(ValueError, match=r"tensor 'words': \[2, 2\] and \[2, 4\]\), so they cannot be .* chunk to 1"):
        examples.take(torch.tensor([[0, 1], [2, 3]]))


def lists(items):
    """Two lists, of inputs and targets."""
    return [x for x, _ in items], [target for _, target in items]


class Boxes(nn.Module):
    """One number an image and one a box, from images of one size."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, 0.7], dtype=torch.float64))

    def forward(self, x):
        return [self.weight * image.sum() for image in x]


def box_loss(outputs, targets):
    return torch.stack(
        [(output - target["boxes"]).square().sum() for output, target in zip(outputs, targets, strict=True)]
    )


def test_a_target_may_be_a_list_with_an_item_for_each_example():
    images = problems.targets(6)
    items = [(x, {"boxes": problems.targets(k % 3, 2, seed=k)}) for k, x in enumerate(images)]
    risk = EmpiricalRisk(Boxes(), box_loss, items, block=4, collate=lists)
    module = Boxes()
    loss = box_loss(module(images), [target for _, target in items]).mean()
    (expected,) = torch.autograd.grad(loss, module.weight)
    evaluation = risk.evaluate()
    torch.testing.assert_close(evaluation.gradient, expected, **oracles.ROUNDING)
    assert evaluation.loss == pytest.approx(loss.item(), rel=1e-12)


# what is refused


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


@pytest.mark.parametrize("data", [(X, Y), [X, Y], TensorExamples((X, Y)), Selection(TensorExamples((X, Y)))])
def test_collate_needs_a_data_set(data):
    with pytest.raises(ValueError, match=f"not for data of type {type(data).__name__}"):
        risk_of(data, collate=padded)


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
        risk_of(list(zip(X, Y, strict=True)), collate=lambda items: (torch.rand(len(items)), torch.zeros(len(items))))
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
    with pytest.raises(ValueError, match=re.escape(DEFAULT) + r" \(stack expects .*\): give a function collate=\.\.\."):
        risk_of(examples).evaluate()


def test_a_worker_that_is_killed_changes_nothing(monkeypatch):
    waiting = "torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data.__defaults__"
    monkeypatch.setattr(waiting, (0.1,))  # seconds after which the process looks whether its workers live; 5 in torch
    parent = os.getpid()

    def kill(number, x):
        if number == 6 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return x

    risk = risk_of(DatasetExamples(Points(kill), workers=1))
    with pytest.warns(UserWarning, match="the workers that load the data failed, so they are not used: "):
        evaluation = risk.evaluate()
    assert torch.equal(evaluation.gradient, risk_of((X, Y)).evaluate().gradient)
    assert torch.equal(risk.evaluate().gradient, evaluation.gradient)


def test_workers_draw_no_random_numbers_of_the_process():
    risk = risk_of(DatasetExamples(Points(), workers=1))
    before = torch.get_rng_state()
    risk.evaluate()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [-1, 1.5, True])
def test_workers_must_be_a_number(workers):
    with pytest.raises(ValueError, match=f"workers must be a number of processes, 0 for none, not {workers}"):
        DatasetExamples(Points(), workers=workers)


def test_the_example_of_the_docs_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(code, "docs/data.md", "exec"), names)
    module, batch = names["risk"].module, names["collate"](names["dataset"])
    expected = F.cross_entropy(module(batch["tokens"]), batch["labels"]).item()
    assert float(capsys.readouterr().out) == pytest.approx(expected, rel=1e-6)  # float32
