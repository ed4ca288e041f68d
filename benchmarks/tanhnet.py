"""A small smooth network and its squared loss, as `--model tanhnet:mlp --loss tanhnet:half_squared_error`.

Tanh has derivatives of all orders, as flows and third derivatives need; the runs of benchmarks/questions.py name both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mlp(channels: int, classes: int, width: int = 32, pixels: int = 64) -> nn.Module:
    """Two hidden layers of tanh, for images of `pixels` pixels `[n, channels, H, W]`, to `[n, classes]`."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(channels * pixels, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, classes),
    )  # fmt: skip


def half_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """`||output - e_target||^2 / 2` of each example `[n]`, e unit vectors: square loss of arXiv 2103.00065."""
    wanted = torch.arange(output.shape[-1], device=output.device) == target.unsqueeze(-1)  # one_hot has no vmap
    return (output - wanted.to(output.dtype)).square().sum(-1) / 2
