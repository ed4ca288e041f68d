"""The plain loop that sweeps are measured against: what one writes in PyTorch without this program.

Uncompiled, in float32, blocks one after the other, gradients accumulated in `.grad`, the penalty by moving the
parameters there and back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Block = tuple[Tensor, Tensor]
"""images `[n, C, H, W]` and labels `[n]`"""


def risk(model: nn.Module, blocks: Sequence[Block]) -> None:
    """Leaves the mean gradient over all blocks in the parameters' `.grad`."""
    count = sum(len(y) for _, y in blocks)
    model.zero_grad()
    for x, y in blocks:
        (F.cross_entropy(model(x), y) * (len(y) / count)).backward()


def penalised(model: nn.Module, blocks: Sequence[Block], factor: float, eps: float) -> None:
    """The same for the risk with a penalty by forward differences: two gradients a block.

    Args:
        model: its parameters are moved and put back.
        blocks: of the sweep.
        factor: of the Hessian product with the block's gradient.
        eps: length of the probe.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    count = sum(len(y) for _, y in blocks)
    total = [torch.zeros_like(p) for p in parameters]
    for x, y in blocks:
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
        h = eps / float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
        kept = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p.add_(g, alpha=h)
        ahead = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
        with torch.no_grad():
            for p, old, g, a, t in zip(parameters, kept, gradients, ahead, total, strict=True):
                p.copy_(old)
                t.add_(g + (factor / h) * (a - g), alpha=len(y) / count)
    for p, t in zip(parameters, total, strict=True):
        p.grad = t
