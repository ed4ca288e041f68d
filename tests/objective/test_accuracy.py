"""In float32, loss and gradient of a sweep are as near to float64 as those of plain contiguous PyTorch."""

from __future__ import annotations

import copy
import statistics

import oracles
import problems
import pytest
import torch
from torch import nn

from noiseless import EmpiricalRisk, Execution, cross_entropy, models
from noiseless.models.form import Form
from noiseless.objective import layout
from noiseless.objective.compiled import Compiler

SEEDS = 3
BAR = 1.2
"""largest ratio of the medians of errors, ours to plain contiguous float32 PyTorch's"""
ULP = 1.2e-7  # of a float32 loss


def images(seed, count, side):
    return torch.randn(count, 3, side, side, generator=problems.generator(seed)), torch.arange(count) % 10


def wide():
    """Sums of 864 terms; no ReLU, at whose kinks a rounding turns whole units on."""
    layers, channels = [], 3
    for _ in range(5):
        layers += [nn.Conv2d(channels, 96, 3, padding=1, bias=False), nn.BatchNorm2d(96), nn.GELU()]
        channels = 96
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))


def group_normed():
    """Group norm of values whose mean is five times their deviation."""
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    module = nn.Sequential(*layers, nn.Linear(16, 10))
    with torch.no_grad():
        module[0].bias.add_(3.0)
    return module


CASES = {"wide": (wide, 24, 8), "group norm": (group_normed, 64, 16)}


def errors(make, count, side, compiler=None):
    """Medians over seeds of relative errors from float64: loss and gradient of plain PyTorch, and of a sweep."""
    rows = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        module, (x, y) = make(), images(seed, count, side)
        loss, gradient = oracles.one_batch(copy.deepcopy(module).double(), cross_entropy, (x.double(), y))
        plain_loss, plain = oracles.one_batch(copy.deepcopy(module), cross_entropy, (x, y))
        ours = EmpiricalRisk(module, cross_entropy, (x, y), execution=Execution(compiler=compiler)).evaluate()
        apart = [float((g.double() - gradient).norm() / gradient.norm()) for g in (plain, ours.gradient)]
        rows.append((abs(plain_loss / loss - 1), apart[0], abs(ours.loss / loss - 1), apart[1]))
    return tuple(map(statistics.median, zip(*rows, strict=True)))


@pytest.mark.parametrize("name", CASES)
def test_a_sweep_is_as_accurate_as_contiguous_pytorch(name):
    plain_loss, plain, loss, gradient = errors(*CASES[name])
    assert loss <= BAR * plain_loss + ULP
    assert gradient <= BAR * plain


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("wide", marks=pytest.mark.soak), "group norm"])
def test_a_compiled_sweep_is_as_accurate(name):
    messages = []
    plain_loss, plain, loss, gradient = errors(*CASES[name], Compiler(messages.append))
    assert messages == []
    assert loss <= BAR * plain_loss + ULP
    assert gradient <= BAR * plain


def test_only_modules_with_long_sums_get_contiguous_images():
    """ResNet-18 sums up to 512 x 9 terms, resnet20 mostly 144 and 288; a SpeedNet is for speed."""
    expected = {"resnet18": True, "vgg11": True, "resnet20": False, "speednet256": False, "linear": False}
    x = torch.zeros(2, 3, 32, 32)
    for name, contiguous in expected.items():
        module = models.build(name, channels=3, classes=10, seed=0, size=(32, 32))
        assert layout.preferred(module, x, None).is_contiguous() is contiguous, name
        assert layout.preferred(module, x, torch.bfloat16).is_contiguous() is False
        assert layout.preferred(module, x.double(), None).is_contiguous() is False


def test_a_group_norm_has_its_own_forward_again_after_a_sweep():
    module = models.build("resnet8", channels=3, classes=10, seed=0, form=Form(norm="group"))
    norm = next(layer for layer in module.modules() if isinstance(layer, nn.GroupNorm))
    norm.forward = own = lambda x: type(norm).forward(norm, x)
    EmpiricalRisk(module, cross_entropy, images(0, 4, 8)).evaluate()
    assert norm.forward is own
    assert all("forward" not in layer.__dict__ for layer in module.modules() if layer is not norm)
