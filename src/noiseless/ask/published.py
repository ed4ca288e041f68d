"""The published digests: tiny portable runs and derivatives, computed anew and compared, for `verify --published`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from noiseless import keyed
from noiseless.files.checkpoint import digest
from noiseless.losses.classification import cross_entropy
from noiseless.objective import EmpiricalRisk
from noiseless.portable import arithmetic
from noiseless.portable.published import PUBLISHED
from noiseless.recipes.config import Config, Settings
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import row
from noiseless.run.build import build
from noiseless.run.train import train

RUNS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "fb, SGD, 2 steps": ("fb", {"steps": 2, "warmup": 0, "block": 128}),
    "fb-regularized, a gradient penalty, 1 step": ("fb-regularized", {"steps": 1, "warmup": 0, "block": 128}),
    "sgd, shuffled, random crops, 4 updates": ("sgd", {"steps": 1, "warmup": 0, "block": 128, "augment": "crop-flip"}),
    "fb, AdamW, group norm, 2 steps": (
        "fb", {"steps": 2, "warmup": 0, "block": 128, "optimizer": "AdamW", "lr": 1e-3, "norm": "group"},
    ),
    "fb, Muon, no norm, 1 step": (
        "fb", {"steps": 1, "warmup": 0, "block": 128, "optimizer": "Muon", "lr": 0.02, "norm": "skipinit"},
    ),
}  # fmt: skip
"""name -> recipe and flags, all on digits"""


@dataclass(frozen=True)
class Published:
    """A digest computed here, and the published one."""

    name: str
    digest: str
    published: str

    @property
    def equal(self) -> bool:
        """Whether they are the same."""
        return self.digest == self.published


def compare(chunk: int | None = None) -> Iterator[Published]:
    """Computes each published digest.

    Args:
        chunk: blocks computed at once; None: chosen as in a run. It changes no digest, and neither do threads.

    Yields:
        The comparisons, one after the other.
    """
    for name, compute in cases(chunk).items():
        yield Published(name, compute(), PUBLISHED.get(name, "none"))


def cases(chunk: int | None = None) -> dict[str, Callable[[], str]]:
    """Name -> function that computes the digest."""
    runs = {name: partial(_run, *given, chunk) for name, given in RUNS.items()}
    return {
        **runs,
        "convolutions: gradient, Hessian product": partial(_derivatives, _convolutional(), (1, 8, 8)),
        "attention: gradient, Hessian product": partial(_derivatives, _transformer(), (6, 16)),
    }


def _run(recipe: str, flags: dict[str, Any], chunk: int | None) -> str:
    """The digest of a run's final parameters and buffers; nothing is written."""
    portable = with_flags(row(recipe, "small"), **({"data": "digits", "model": "resnet8", "portable": True} | flags))
    threads = torch.get_num_threads()
    experiment = build(Config(portable, Settings(threads=threads, chunk=chunk, evaluate_every=10)))
    train(experiment, None)
    return digest(dict(experiment.model.state_dict()))


def _derivatives(module: nn.Module, shape: tuple[int, ...]) -> str:
    """The digest of loss, gradient and a Hessian product of a module on 24 keyed examples in blocks of 12."""
    x, y = _numbers(1, (24, *shape)), torch.arange(24) % 10
    with torch.no_grad():
        for number, p in enumerate(module.parameters()):
            p.copy_(_numbers(2 + number, tuple(p.shape)) * (0.3 if p.ndim > 1 else 0.1) + float(p.ndim == 1))
    risk = EmpiricalRisk(module, cross_entropy, (x, y), block=12, portable=True)
    evaluation = risk.evaluate()
    product = risk.hvp(_numbers(100, (1, len(risk.space))))
    loss = torch.tensor(evaluation.loss, dtype=torch.float64)
    return digest({"loss": loss, "gradient": evaluation.gradient, "product": product})


def _convolutional() -> nn.Module:
    """Convolutions of several kinds, norms, pools, GELU and tanh."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2),
        nn.GroupNorm(2, 8), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(12, 10),
    )  # fmt: skip


def _transformer() -> nn.Module:
    """Attention and layer norm over a sequence of 6 vectors of 16 numbers, and a mean over it."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
            self.head = nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x).mean(1))

    return Classifier()


def _numbers(number: int, shape: tuple[int, ...]) -> Tensor:
    """Normal numbers, float32."""
    with arithmetic():
        index = torch.arange(torch.Size(shape).numel())
        return keyed.normal(0, "published", number, index).float().reshape(shape)
