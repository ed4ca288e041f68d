"""The published code's arithmetic, reimplemented from its facts in plain PyTorch, as an oracle for `--compat`.

One process, float32, no augmentation, images in their order. It differs from the program on purpose: the
last short block is never used, batch norm is torch's own (its averages are exponential, and the penalty's probe moves
them), the mean over blocks is a running one in float32, and the learning rate comes from torch's own scheduler.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Row:
    """What the published code records of a step."""

    lr: float
    train_loss: float
    train_accuracy: float
    block_gradient_norm: float
    """root of the mean square of the blocks' gradient norms, before penalty and clip"""
    gradient_norm: float
    """of the gradient with its penalty, before the clip; the mean over a stochastic step's updates"""
    penalty: float
    """as it is printed: with lr / 4, twice the value whose gradient is used"""
    test_loss: float
    test_accuracy: float


@dataclass(frozen=True)
class Setting:
    """One row of the ladder."""

    stochastic: bool
    steps: int
    lr: float
    warmup: int
    horizon: int
    block: int
    clip: float | None = None
    strength: float = 0.0
    central: bool = False
    weight_decay: float = 5e-4


def rates(setting: Setting) -> list[float]:
    """Linear warm-up, then torch's cosine scheduler, which takes its first step one step late."""
    holder = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=setting.lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(holder, setting.horizon)
    values = []
    for step in range(setting.steps):
        if setting.warmup and step <= setting.warmup:
            values.append(setting.lr * step / setting.warmup)
            continue
        values.append(holder.param_groups[0]["lr"])
        holder.step()
        cosine.step()
    return values


def train(model: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], setting: Setting) -> list[Row]:
    """Trains a copy of the model; returns a row for each step."""
    model = copy.deepcopy(model).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(
        parameters, lr=setting.lr, momentum=0.9, nesterov=True, weight_decay=setting.weight_decay
    )
    images, labels = train
    blocks = [slice(s, s + setting.block) for s in range(0, len(images) - setting.block + 1, setting.block)]
    rows = []
    for lr in rates(setting):
        optimizer.param_groups[0]["lr"] = lr
        losses, hits, square_norms, norms = [], 0, [], []
        mean = [torch.zeros_like(p) for p in parameters]
        for number, block in enumerate(blocks):
            output = model(_channels_last(images[block]))
            loss = F.cross_entropy(output, labels[block])
            gradients = list(torch.autograd.grad(loss, parameters))
            losses.append(loss.item())
            hits += int((output.argmax(1) == labels[block]).sum())
            square_norms.append(sum(g.square().sum() for g in gradients))
            if setting.strength:
                gradients = _penalised(model, parameters, gradients, images[block], labels[block], setting, lr)
            if setting.stochastic:
                norms.append(_update(optimizer, parameters, gradients, setting.clip))
            else:
                for average, gradient in zip(mean, gradients, strict=True):
                    average += (gradient - average) / (number + 1)
        mean_square = float(torch.stack(square_norms).mean())
        if not setting.stochastic:
            norms.append(_update(optimizer, parameters, mean, setting.clip))
        train_loss = sum(losses) / len(losses)
        penalty = lr / 4 * setting.strength * mean_square
        test_loss, test_accuracy = _score(model, *test)
        train_accuracy, norm = hits / (len(blocks) * setting.block), sum(norms) / len(norms)
        rows.append(Row(lr, train_loss, train_accuracy, mean_square**0.5, norm, penalty, test_loss, test_accuracy))
    return rows


def _penalised(
    model: nn.Module, parameters: list[Tensor], g: list[Tensor], x: Tensor, y: Tensor, setting: Setting, lr: float
) -> list[Tensor]:
    """g + (lr / 4) H v, v = strength * g; H v by differences over 0.01. Probes move batch norm's averages."""
    v = [setting.strength * gradient for gradient in g]
    h = 1e-2 / torch.stack([direction.square().sum() for direction in v]).sum().sqrt()
    starts = [p.detach().clone() for p in parameters]

    def probe(distance: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            for p, start, direction in zip(parameters, starts, v, strict=True):
                p.copy_(start + distance * direction)
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
        with torch.no_grad():
            for p, start in zip(parameters, starts, strict=True):
                p.copy_(start)
        return gradients

    ahead = probe(h / 2 if setting.central else h)
    behind = probe(-h / 2) if setting.central else g
    return [gradient + lr / 4 * (a - b) / h for gradient, a, b in zip(g, ahead, behind, strict=True)]


def _update(optimizer: torch.optim.Optimizer, parameters: list[Tensor], g: list[Tensor], clip: float | None) -> float:
    """One step of the optimizer; returns the gradient's norm before the clip."""
    norm = torch.stack([gradient.norm() for gradient in g]).norm()
    scale = clip / (norm + 1e-6) if clip is not None and norm > clip else 1.0
    for p, gradient in zip(parameters, g, strict=True):
        p.grad = gradient * scale
    optimizer.step()
    return float(norm)


@torch.no_grad()
def _score(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    model.eval()
    output = model(images)
    model.train()
    return float(F.cross_entropy(output, labels)), float((output.argmax(1) == labels).double().mean())


def _channels_last(images: Tensor) -> Tensor:
    """The images in channels-last layout, as in sweeps: in another layout convolutions round differently."""
    return images.contiguous(memory_format=torch.channels_last)
