"""The published code's arithmetic, written anew from its facts in plain PyTorch, as an oracle for `--compat`.

One process, float32, no augmentation, images in their order. It has on purpose what the program does otherwise: the
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
    """as it is printed: with lr / 4, twice what the gradient belongs to"""
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
    """Linear warm-up with torch's cosine scheduler behind it, which takes its first step one late."""
    holder = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=setting.lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(holder, setting.horizon)
    found = []
    for step in range(setting.steps):
        if setting.warmup and step <= setting.warmup:
            found.append(setting.lr * step / setting.warmup)
            continue
        found.append(holder.param_groups[0]["lr"])
        holder.step()
        cosine.step()
    return found


def train(model: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], setting: Setting) -> list[Row]:
    """Trains a copy of the model; a row a step."""
    model = copy.deepcopy(model).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(
        parameters, lr=setting.lr, momentum=0.9, nesterov=True, weight_decay=setting.weight_decay
    )
    images, labels = train
    whole = [slice(s, s + setting.block) for s in range(0, len(images) - setting.block + 1, setting.block)]
    rows = []
    for lr in rates(setting):
        optimizer.param_groups[0]["lr"] = lr
        losses, hits, squares, lengths = [], 0, [], []
        mean = [torch.zeros_like(p) for p in parameters]
        for number, part in enumerate(whole):
            output = model(_laid_out(images[part]))
            loss = F.cross_entropy(output, labels[part])
            gradients = list(torch.autograd.grad(loss, parameters))
            losses.append(loss.item())
            hits += int((output.argmax(1) == labels[part]).sum())
            squares.append(sum(g.square().sum() for g in gradients))
            if setting.strength:
                gradients = _penalised(model, parameters, gradients, images[part], labels[part], setting, lr)
            if setting.stochastic:
                lengths.append(_update(optimizer, parameters, gradients, setting.clip))
            else:
                for average, gradient in zip(mean, gradients, strict=True):
                    average += (gradient - average) / (number + 1)
        square = float(torch.stack(squares).mean())
        if not setting.stochastic:
            lengths.append(_update(optimizer, parameters, mean, setting.clip))
        train_loss = sum(losses) / len(losses)
        penalty = lr / 4 * setting.strength * square
        test_loss, accuracy = _score(model, *test)
        hit, length = hits / (len(whole) * setting.block), sum(lengths) / len(lengths)
        rows.append(Row(lr, train_loss, hit, square**0.5, length, penalty, test_loss, accuracy))
    return rows


def _penalised(
    model: nn.Module, parameters: list[Tensor], g: list[Tensor], x: Tensor, y: Tensor, setting: Setting, lr: float
) -> list[Tensor]:
    """g + (lr / 4) H v with v = strength * g, H v by differences over a distance of 0.01; batch norm sees them."""
    v = [setting.strength * each for each in g]
    h = 1e-2 / torch.stack([each.square().sum() for each in v]).sum().sqrt()
    kept = [p.detach().clone() for p in parameters]

    def probe(distance: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            for p, start, each in zip(parameters, kept, v, strict=True):
                p.copy_(start + distance * each)
        found = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
        with torch.no_grad():
            for p, start in zip(parameters, kept, strict=True):
                p.copy_(start)
        return found

    ahead = probe(h / 2 if setting.central else h)
    behind = probe(-h / 2) if setting.central else g
    return [each + lr / 4 * (a - b) / h for each, a, b in zip(g, ahead, behind, strict=True)]


def _update(optimizer: torch.optim.Optimizer, parameters: list[Tensor], g: list[Tensor], clip: float | None) -> float:
    """One step of the optimizer; the gradient's norm before the clip."""
    norm = torch.stack([each.norm() for each in g]).norm()
    scale = clip / (norm + 1e-6) if clip is not None and norm > clip else 1.0
    for p, each in zip(parameters, g, strict=True):
        p.grad = each * scale
    optimizer.step()
    return float(norm)


@torch.no_grad()
def _score(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    model.eval()
    output = model(images)
    model.train()
    return float(F.cross_entropy(output, labels)), float((output.argmax(1) == labels).double().mean())


def _laid_out(images: Tensor) -> Tensor:
    """In the memory layout that sweeps use, where convolutions round otherwise: training would amplify that."""
    return images.contiguous(memory_format=torch.channels_last)
