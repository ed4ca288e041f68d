"""Checkpoints as the paper's published code saves them, made here by torch itself: real SGD, real schedules."""

from __future__ import annotations

import contextlib
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn

from noiseless import models

HOME = "fullbatch.training.additional_optimizers.warmup"
"""a module that is not installed; files name classes of it"""


class WarmUp(torch.optim.lr_scheduler.LRScheduler):
    """A linear warm-up that hands over to another schedule, and so has a schedule object in its state."""

    def __init__(self, optimizer, total, after_scheduler):
        self.total, self.after_scheduler, self.finished = total, after_scheduler, False
        super().__init__(optimizer)

    def get_lr(self):
        return [base * min(1.0, self.last_epoch / self.total) for base in self.base_lrs]


class Cosine(torch.optim.lr_scheduler.CosineAnnealingLR):
    """A schedule whose class is not where the file says it is."""


@contextlib.contextmanager
def published_modules():
    """Lets torch.save write the classes above as members of the module that is not installed."""
    module = types.ModuleType(HOME)
    module.WarmUp, module.Cosine = WarmUp, Cosine
    homes = [(kind, kind.__module__) for kind in (WarmUp, Cosine)]
    parts = HOME.split(".")
    names = [".".join(parts[:k]) for k in range(1, len(parts) + 1)]
    sys.modules.update({name: types.ModuleType(name) for name in names[:-1]} | {HOME: module})
    for kind, _ in homes:
        kind.__module__ = HOME
    try:
        yield
    finally:
        for kind, home in homes:
            kind.__module__ = home
        for name in names:
            del sys.modules[name]


def parts(step: int = 3, model: nn.Module | None = None, channels: int = 1, classes: int = 4) -> list[Any]:
    """The list of a checkpoint: a small ResNet after some steps of SGD on noise, with momentum, warm-up and cosine."""
    model = model or models.build("resnet8", channels, classes, seed=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4, momentum=0.9, weight_decay=5e-4, nesterov=True)
    after = Cosine(optimizer, T_max=10)
    schedule = WarmUp(optimizer, 2, after)
    generator = torch.Generator().manual_seed(1)
    for _ in range(step):
        optimizer.zero_grad()
        x = torch.rand(16, channels, 8, 8, generator=generator)
        nn.functional.cross_entropy(model(x), torch.arange(16) % classes).backward()
        optimizer.step()
        schedule.step()
    return [optimizer.state_dict(), model.state_dict(), schedule.state_dict(), None, step]


def write(path: Path, content: Any, legacy: bool = False, **settings: Any) -> Path:
    """Saves as the published code does, in the format of today or the one before it."""
    with published_modules():
        torch.save(content, path, _use_new_zipfile_serialization=not legacy, **settings)
    return path
