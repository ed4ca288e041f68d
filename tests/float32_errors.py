"""How far float32 is from float64: loss and gradient of plain PyTorch, and of a sweep over channels-last images."""

from __future__ import annotations

import copy
import statistics

import oracles
import problems
import torch
from torch import nn

from noiseless import EmpiricalRisk, Execution, cross_entropy

COUNT, WIDTH, SEEDS = 256, 16, (0, 1, 2)
ULP = 1.2e-7  # of a float32 loss
# Twice the error of plain PyTorch leaves room for luck of three seeds on other processors: both are near 7e-7 here, and
# values added one by one give 3.4e-6.


def relative_error(value, expected):
    """The norm of the difference, in units of that of `expected`."""
    return float((value.double() - expected).norm() / expected.norm())


def network(shift):
    """A convolution with batch norm behind; `shift` is about the mean of what the norm sees, whose deviation is 0.6.

    A pool, or more layers, would multiply the time that it takes to compile.
    """
    layers = [nn.Conv2d(3, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.GELU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10))
    with torch.no_grad():
        module[0].bias.add_(shift)
    return module


def errors(shift, compiler=None):
    """Medians over seeds of relative errors against float64: (loss, gradient) of plain PyTorch, and of a sweep."""
    torch.manual_seed(0)
    module, rows = network(shift), []
    for seed in SEEDS:
        images = torch.randn(COUNT, 3, 16, 16, generator=problems.generator(seed), dtype=torch.float64)
        labels = torch.arange(COUNT) % 10
        loss, gradient = oracles.one_batch(copy.deepcopy(module).double(), cross_entropy, (images, labels))
        plain_loss, plain = oracles.one_batch(copy.deepcopy(module), cross_entropy, (images.float(), labels))
        data = (images.float().contiguous(memory_format=torch.channels_last), labels)
        evaluation = EmpiricalRisk(module, cross_entropy, data, execution=Execution(compiler=compiler)).evaluate()
        rows.append([
            abs(plain_loss / loss - 1), relative_error(plain, gradient),
            abs(evaluation.loss / loss - 1), relative_error(evaluation.gradient, gradient),
        ])  # fmt: skip
    plain_loss, plain, loss, gradient = map(statistics.median, zip(*rows, strict=True))
    return (plain_loss, plain), (loss, gradient)
