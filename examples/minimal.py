"""Full-batch training without gradient noise, on one page: the row "fb-regularized" of the paper's ladder.

Plain PyTorch, without the library's objective, optimizer step and loop; a test compares its numbers with theirs.
Run it: .venv/bin/python examples/minimal.py   (about a minute; prints loss, gradient norm and test accuracy)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseless import data, models

STEPS, WARMUP, HORIZON = 100, 13, 133  # a thirtieth of the paper's
LR, CLIP, PENALTY, EPS = 0.8, 0.25, 0.5, 1e-2
BLOCK = 32  # images; the paper has blocks of 128, of 50,000 images


def schedule(t: int) -> float:
    """Learning rate of step t: linear warm-up, then a cosine, of which the run ends at about a quarter of the peak."""
    return LR * t / WARMUP if t <= WARMUP else LR * (1 + math.cos(math.pi * (t - WARMUP - 1) / HORIZON)) / 2


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, list[Tensor]]:
    """Mean loss of one block, and its gradient."""
    loss = F.cross_entropy(model(x), y)
    return loss.item(), list(torch.autograd.grad(loss, list(model.parameters())))


def penalised(model: nn.Module, x: Tensor, y: Tensor, lr: float) -> tuple[float, list[Tensor]]:
    """Mean loss of one block, and g + (lr / 4) s H g with s = PENALTY; H g by a forward difference of length EPS."""
    parameters = list(model.parameters())
    loss, g = gradient(model, x, y)
    h = EPS / (PENALTY * norm(g))
    theta = [p.detach().clone() for p in parameters]
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    with torch.no_grad():
        for p, part in zip(parameters, g, strict=True):
            p.add_(h * PENALTY * part)
    _, ahead = gradient(model, x, y)
    with torch.no_grad():  # undo the probe
        for p, start in zip(parameters, theta, strict=True):
            p.copy_(start)
        for name, b in model.named_buffers():
            b.copy_(buffers[name])
    return loss, [a + lr / 4 * (b - a) / h for a, b in zip(g, ahead, strict=True)]


def norm(parts: list[Tensor]) -> float:
    """L2 norm of a list of tensors."""
    return math.sqrt(sum(part.double().square().sum().item() for part in parts))


def run(steps: int = STEPS, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[tuple[float, float, float]]:
    """Trains; returns (loss, gradient norm before clipping, parameter norm after the step) for each step."""
    digits = data.load("digits")
    images = data.Images(digits.x_train, digits.y_train, *digits.statistics(), dtype)
    model = models.build("resnet8", channels=1, classes=10, seed=seed).to(dtype).train()
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    record = []
    for step in range(steps):
        lr = optimizer.param_groups[0]["lr"] = schedule(step)
        pixels = data.crop_flip(digits.x_train, seed, step, torch.arange(len(images)), padding=1, flip=0.0)
        x, y = data.Images(pixels, digits.y_train, *digits.statistics(), dtype).take(torch.arange(len(images)))
        total_loss, total = 0.0, [torch.zeros_like(p, dtype=torch.float64) for p in model.parameters()]
        for x_b, y_b in zip(x.split(BLOCK), y.split(BLOCK), strict=True):
            loss, g = penalised(model, x_b, y_b, lr)
            total_loss += loss * len(y_b) / len(y)
            for sum_, part in zip(total, g, strict=True):
                sum_ += part.double() * len(y_b) / len(y)
        length = norm(total)
        for p, part in zip(model.parameters(), total, strict=True):
            p.grad = (part * (CLIP / (length + 1e-6) if length > CLIP else 1.0)).to(dtype)
        optimizer.step()
        record.append((total_loss, length, norm(list(model.parameters()))))
        print(f"step {step:3d}  lr {lr:.4f}  loss {total_loss:.5f}  gradient norm {length:.4f}")
    test = data.Images(digits.x_test, digits.y_test, *digits.statistics(), dtype)
    x, y = test.take(torch.arange(len(test)))
    print(f"test accuracy {(model.eval()(x).argmax(1) == y).double().mean().item():.2%}")
    return record


if __name__ == "__main__":
    torch.manual_seed(0)
    run()
