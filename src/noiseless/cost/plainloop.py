"""A plain PyTorch training loop, as one writes it without this program: the baseline of speed measurements.

Uncompiled, in float32, one block after the other, gradients accumulated in `.grad`. The penalty moves the parameters by
a probe and back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Block = tuple[Tensor, Tensor]
"""images `[n, C, H, W]` and labels `[n]`"""


def risk(model: nn.Module, blocks: Sequence[Block]) -> None:
    """Computes the gradient of the mean cross entropy over all examples, into the parameters' `.grad`."""
    count = sum(len(y) for _, y in blocks)
    model.zero_grad()
    for x, y in blocks:
        (F.cross_entropy(model(x), y) * (len(y) / count)).backward()


def penalised(model: nn.Module, blocks: Sequence[Block], factor: float, eps: float) -> None:
    """Computes the gradient of the risk with a gradient penalty by forward differences, into the parameters' `.grad`.

    A block costs two gradients: with g its gradient at theta and h = eps / |g|, it adds
    `g + (factor / h) (gradient at (theta + h g) - g)`, weighted by its share of the examples.

    Args:
        model: its parameters are moved and put back.
        blocks: of the sweep.
        factor: weight of the Hessian product `H g`.
        eps: L2 length of the probe `h g`.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    count = sum(len(y) for _, y in blocks)
    total = [torch.zeros_like(p) for p in parameters]
    for x, y in blocks:
        gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
        h = eps / float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p.add_(g, alpha=h)
        ahead = torch.autograd.grad(F.cross_entropy(model(x), y), parameters)
        with torch.no_grad():
            for p, old, g, a, t in zip(parameters, before, gradients, ahead, total, strict=True):
                p.copy_(old)
                t.add_(g + (factor / h) * (a - g), alpha=len(y) / count)
    for p, t in zip(parameters, total, strict=True):
        p.grad = t
