"""Small float64 problems that several test files share: models of some ten parameters, data of eleven examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

COUNT = 11  # prime: blocks of 3 and 7 leave a short last one (of 2 and 4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fill(module: nn.Module, seed: int = 1) -> nn.Module:
    """The module in float64, with random parameters and batch-norm buffers, none of them 0 or 1."""
    module = module.double()
    rng = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=torch.float64) * 0.6)
        for name, b in module.named_buffers():
            if b.is_floating_point():
                b.copy_(torch.rand(b.shape, generator=rng, dtype=torch.float64) + (0.5 if "var" in name else 0.0))
    return module


def perceptron() -> nn.Module:
    """3 -> 4 -> 3, without batch norm; smooth."""
    return fill(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)))


def with_batch_norm() -> nn.Module:
    """As `perceptron`, with two batch-norm layers of different momentum."""
    return fill(
        nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.3), nn.Tanh(),
            nn.Linear(3, 3),
        )
    )  # fmt: skip


def convolution() -> nn.Module:
    """Convolution with batch norm over images, `[n, 1, 4, 4]` -> `[n, 3]`."""
    return fill(
        nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    )


def with_dropout() -> nn.Module:
    return fill(nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)))


def points(count: int = COUNT, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Inputs `[count, 3]` and 3 classes."""
    rng = generator(seed)
    x = torch.randn(count, 3, generator=rng, dtype=torch.float64)
    return x, torch.randint(3, (count,), generator=rng)


def images(count: int = COUNT, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Images `[count, 1, 4, 4]` and 3 classes."""
    rng = generator(seed)
    x = torch.randn(count, 1, 4, 4, generator=rng, dtype=torch.float64)
    return x, torch.randint(3, (count,), generator=rng)


def targets(count: int = COUNT, width: int = 3, seed: int = 4) -> Tensor:
    """Real targets `[count, width]`."""
    return torch.randn(count, width, generator=generator(seed), dtype=torch.float64)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in module.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
