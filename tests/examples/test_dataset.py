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
from items import SEQUENCES, Points, X, Y, loader, padded, risk_of
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from noiseless import DatasetExamples, EmpiricalRisk, Execution
from noiseless.objective import TensorExamples


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
    risk = risk_of(DatasetExamples(dataset))
    dataset.loaded.clear()
    risk = replace(risk, norm_block=2)
    risk = replace(risk.at(replace(risk.selection, step=1)), norm_block=4)
    assert dataset.loaded == []
    replace(risk, execution=Execution(check=False)).evaluate()  # the check takes some examples as well
    assert dataset.loaded == list(range(len(X)))


# collate


class Bag(nn.Module):
    """Logits from the mean embedding of the tokens that are not padding."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(6, 3), nn.Linear(3, 3)
        problems.fill(self)

    def forward(self, words):
        kept = (words > 0)[..., None]
        return self.head((self.table(words) * kept).sum(1) / kept.sum(1))


@pytest.mark.parametrize(
    "data",
    [DatasetExamples(SEQUENCES, padded), DataLoader(SEQUENCES, collate_fn=padded)],
    ids=["collate", "DataLoader"],
)
def test_padded_sequences_agree_with_autograd(data):
    risk = risk_of(data, module=Bag())
    risk = replace(risk.at(replace(replace(risk, norm_block=2).selection, step=1)), norm_block=4)
    module = Bag()
    losses = [F.cross_entropy(module(words[None]), label[None]) for words, label in SEQUENCES]
    expected = oracles.flat(torch.autograd.grad(torch.stack(losses).mean(), list(module.parameters())))
    torch.testing.assert_close(risk.evaluate().gradient, expected, **oracles.ROUNDING)


def test_blocks_of_several_shapes_are_computed_alone():
    examples = DatasetExamples(SEQUENCES[::-1], padded)
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
    risk = EmpiricalRisk(Boxes(), box_loss, DatasetExamples(items, lists), block=4)
    module = Boxes()
    loss = box_loss(module(images), [target for _, target in items]).mean()
    (expected,) = torch.autograd.grad(loss, module.weight)
    evaluation = risk.evaluate()
    torch.testing.assert_close(evaluation.gradient, expected, **oracles.ROUNDING)
    assert evaluation.loss == pytest.approx(loss.item(), rel=1e-12)


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


def test_the_example_of_the_docs_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(code, "docs/data.md", "exec"), names)
    module, batch = names["risk"].module, names["collate"](names["dataset"])
    expected = F.cross_entropy(module(batch["tokens"]), batch["labels"]).item()
    assert float(capsys.readouterr().out) == pytest.approx(expected, rel=1e-6)  # float32
