"""Cases: a small network with each of torch's losses, called by the oracle as torch's users call it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from module_cases.case import COUNT, Case, Column, numbers, reals

_CLASSES, _REAL = numbers(4, COUNT), reals(COUNT, 4, seed=6)
_MARKS = torch.tensor([[3, 0, -1, 1], [1, -1, -1, -1], [2, 1, 0, -1], [-1, 2, 0, 1]]).repeat(2, 1)
_WEIGHT = torch.tensor([1.0, 2.0, 0.5, 3.0])
_IGNORED = torch.where(torch.arange(COUNT) % 3 == 1, -100, _CLASSES)
_NO_SECOND: dict[Column, str] = {"exact": "torch does not have", "product": "torch does not have"}


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))


def _two(output: Tensor) -> tuple[Tensor, Tensor]:
    return output[:, :2], output[:, 2:]


def _ctc(output: Tensor, target: Tensor) -> Tensor:
    scores = output.reshape(len(output), 2, 2).transpose(0, 1).log_softmax(-1)
    lengths = torch.full((len(output),), 2)
    return F.ctc_loss(scores, target, lengths, torch.ones_like(lengths), reduction="none")


def _weighted(targets: Tensor) -> float:
    """What torch divides the mean of weighted cross entropies by."""
    return float(_WEIGHT[targets].sum())


class _Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.scale * (output - target).square().mean(1)


class _Adaptive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.AdaptiveLogSoftmaxWithLoss(3, 6, [2, 4], div_value=1.0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return -self.scores(x, y).output


Options = dict[str, Any]
LOSSES: list[tuple[str, Callable[..., Any], Tensor, Options]] = [
    ("CrossEntropyLoss", nn.CrossEntropyLoss(), _CLASSES, {}),
    ("CrossEntropyLoss, smoothed", nn.CrossEntropyLoss(label_smoothing=0.1), _CLASSES, {}),
    ("CrossEntropyLoss, ignore_index", nn.CrossEntropyLoss(), _IGNORED, {"weight": lambda y: (y >= 0).sum()}),
    ("CrossEntropyLoss, weights", nn.CrossEntropyLoss(_WEIGHT), _CLASSES, {"weight": _weighted}),
    ("CrossEntropyLoss of shares", nn.CrossEntropyLoss(), _REAL.softmax(1), {}),
    ("F.cross_entropy", F.cross_entropy, _CLASSES, {}),
    ("NLLLoss", lambda o, y: F.nll_loss(o.log_softmax(1), y, reduction="none"), _CLASSES, {}),
    ("MultiMarginLoss", nn.MultiMarginLoss(), _CLASSES, {"doubly": False}),
    ("MultiLabelMarginLoss", nn.MultiLabelMarginLoss(), _MARKS, {"doubly": False}),
    ("MultiLabelSoftMarginLoss", nn.MultiLabelSoftMarginLoss(), _REAL.sigmoid(), {}),
    ("MSELoss", nn.MSELoss(), _REAL, {}),
    ("L1Loss", nn.L1Loss(), _REAL, {}),
    ("SmoothL1Loss", nn.SmoothL1Loss(), _REAL, {}),
    ("HuberLoss", nn.HuberLoss(delta=0.5), _REAL, {}),
    ("BCELoss", lambda o, y: F.binary_cross_entropy(o.sigmoid(), y, reduction="none"), _REAL.sigmoid(), {}),
    ("BCEWithLogitsLoss", nn.BCEWithLogitsLoss(), _REAL.sigmoid(), {}),
    ("KLDivLoss, batchmean", partial(F.kl_div, reduction="batchmean"), _REAL.softmax(1), {}),
    ("PoissonNLLLoss", nn.PoissonNLLLoss(full=True), _REAL.exp(), {}),
    ("GaussianNLLLoss", lambda o, y: F.gaussian_nll_loss(o, y, o.square() + 0.1, reduction="none"), _REAL, {}),
    ("HingeEmbeddingLoss", nn.HingeEmbeddingLoss(), _REAL.sign(), {}),
    ("SoftMarginLoss", nn.SoftMarginLoss(), _REAL.sign(), {}),
    ("MarginRankingLoss", lambda o, y: F.margin_ranking_loss(*_two(o), y[:, :2], 1.0, reduction="none"),
     _REAL.sign(), {}),
    ("CosineEmbeddingLoss", lambda o, y: F.cosine_embedding_loss(o, y, y[:, 0].sign(), reduction="none"), _REAL, {}),
    ("TripletMarginLoss", lambda o, y: F.triplet_margin_loss(o, y, y.flip(1), 5.0, reduction="none"), _REAL, {}),
    ("CTCLoss", _ctc, torch.ones(COUNT, 1, dtype=torch.long), {"refused": _NO_SECOND}),
    ("MSELoss, summed", nn.MSELoss(reduction="sum"), _REAL, {"refused": {"value": "reduction='sum'"}}),
    ("a loss of one number", lambda o, y: (o - y).square().mean(), _REAL, {"refused": {"value": "one"}}),
]  # fmt: skip

CASES = [Case(name, _network, (reals(COUNT, 3), target), loss, **options) for name, loss, target, options in LOSSES] + [
    Case(
        "AdaptiveLogSoftmaxWithLoss, in the module",
        _Adaptive,
        (reals(COUNT, 3), numbers(6, COUNT), numbers(6, COUNT)),
        lambda output, target: output,
    ),
    Case(
        "a loss that broadcasts",
        lambda: nn.Linear(3, 1),
        (reals(COUNT, 3), reals(COUNT)),
        lambda output, target: (output - target).square(),
        refused={"value": "broadcasts"},
    ),
    Case(
        "a loss with parameters",
        _network,
        (reals(COUNT, 3), _REAL),
        _Learned(),
        refused={"value": "trainable parameters"},
    ),
]
