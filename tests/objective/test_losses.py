"""Losses in per-example form, against formulas, and the refusal of those that are not."""

from __future__ import annotations

import problems
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from noiseless import EmpiricalRisk, cross_entropy, squared_error
from noiseless.objective.losses import count_hits, per_example


def test_cross_entropy_is_minus_log_softmax():
    output, target = problems.targets(), problems.points()[1]
    expected = [float(row.exp().sum().log() - row[t]) for row, t in zip(output, target, strict=True)]
    torch.testing.assert_close(cross_entropy(output, target), torch.tensor(expected, dtype=torch.float64))


def test_squared_error_is_the_mean_over_an_examples_elements():
    output, target = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    assert per_example(squared_error, output, target).tolist() == [2.5, 2.0]  # (1 + 4) / 2, (4 + 0) / 2


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.cross_entropy, nn.CrossEntropyLoss(reduction="sum")])
def test_a_reduced_loss_is_refused(loss, chunk):
    risk = EmpiricalRisk(problems.perceptron(), loss, problems.points(), block=3, chunk=chunk)
    with pytest.raises(ValueError, match=r'must give one value an example.*reduction="none"'):
        risk.evaluate()


def test_a_loss_over_classes_is_refused():
    risk = EmpiricalRisk(problems.perceptron(), lambda output, target: output.mean(0), problems.points(11))
    with pytest.raises(ValueError, match=r"gave shape \[3\] for 11 examples"):
        risk.evaluate()


@pytest.mark.parametrize("chunk", [1, 2])
def test_a_label_out_of_range_is_refused(chunk):
    x, y = problems.points()
    risk = EmpiricalRisk(problems.perceptron(), cross_entropy, (x, y + 1), block=3, chunk=chunk)
    with pytest.raises((ValueError, IndexError), match="out of bounds"):
        risk.evaluate()


def test_hits_are_counted_in_classifications_only():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert count_hits(scores, torch.tensor([1, 1, 1])) == 2
    assert count_hits(scores, torch.tensor([1.0, 1.0, 1.0])).isnan()
    assert count_hits(scores, torch.ones(3, 2, dtype=torch.long)).isnan()
    assert count_hits(scores[:, 0], torch.tensor([1, 1, 1])).isnan()
