"""Naive float64 implementations that tests compare the program with. Nothing here imports the program."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev
from torch.nn.modules.batchnorm import _BatchNorm

Loss = Callable[[Tensor, Tensor], Tensor]

# Two float64 computations of one sum in different orders. A rounding is 2**-53 = 1.1e-16 of a term; the small problems
# do some hundred operations on terms of size 1 to 10, whose errors also pass through one or two layers (1e-13). 1e-11
# of the value, or 1e-12 where that is small, leaves a factor of ten to a hundred, and is far below the effect of one
# lost or doubled example (1e-2).
ROUNDING = {"rtol": 1e-11, "atol": 1e-12}


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def theta(module: nn.Module) -> Tensor:
    return flat([p.detach() for p in parameters(module).values()]).clone()


def slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class GhostNorm(nn.Module):
    """Batch norm by hand: each norm block by itself, in a loop; `reports` has (count, mean, unbiased variance)."""

    def __init__(self, layer: _BatchNorm, norm_block: int):
        super().__init__()
        self.weight, self.bias, self.eps, self.norm_block = layer.weight, layer.bias, layer.eps, norm_block
        self.reports: list[tuple[int, Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        dims, shape = [d for d in range(x.ndim) if d != 1], [1, -1] + [1] * (x.ndim - 2)
        parts = []
        for start in range(0, len(x), self.norm_block):
            part = x[start : start + self.norm_block]
            mean = part.mean(dims, keepdim=True)
            variance = (part - mean).square().mean(dims, keepdim=True)
            values = part.numel() / part.shape[1]
            unbiased = variance * values / (values - 1)
            self.reports.append((len(part), mean.detach().flatten(), unbiased.detach().flatten()))
            normalised = (part - mean) / (variance + self.eps).sqrt()
            parts.append(normalised * self.weight.view(shape) + self.bias.view(shape))
        return torch.cat(parts)


def ghosted(module: nn.Module, norm_block: int) -> nn.Module:
    """A copy of the module, its batch-norm layers replaced by `GhostNorm`."""
    copied = copy.deepcopy(module)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, GhostNorm(child, norm_block))
    return copied


class Sweep(NamedTuple):
    loss: float
    gradient: Tensor
    hits: int
    block_square_norms: Tensor


def one_batch(module: nn.Module, loss: Loss, tensors: Sequence[Tensor]) -> tuple[float, Tensor]:
    """Mean loss over all examples in one forward and backward, and its gradient `[P]`."""
    *inputs, target = tensors
    losses = loss(module(*inputs), target)
    value = losses.flatten(1).mean(1).mean() if losses.ndim > 1 else losses.mean()
    return value.item(), flat(torch.autograd.grad(value, list(parameters(module).values())))


def block_loop(module: nn.Module, loss: Loss, tensors: Sequence[Tensor], block: int) -> Sweep:
    """One block after the other by plain forward and backward; the sums are weighted by counts."""
    count = len(tensors[0])
    total, gradient, hits, squares = 0.0, torch.zeros(len(theta(module)), dtype=torch.float64), 0, []
    for part in slices(count, block):
        batch = [t[part] for t in tensors]
        value, g = one_batch(module, loss, batch)
        with torch.no_grad():
            hits += int((module(*batch[:-1]).argmax(1) == batch[-1]).sum()) if batch[-1].ndim == 1 else 0
        n = part.stop - part.start
        total, gradient = total + value * n, gradient + g * n
        squares.append(float(g @ g))
    return Sweep(total / count, gradient / count, hits, torch.tensor(squares, dtype=torch.float64))


@dataclass(frozen=True)
class Penalised:
    """`L + (lr / 8) (strength mean_b ||g_b||**2 + full ||g||**2)` as a function of theta, written out.

    With lr = 0 it is the plain mean loss.
    """

    module: nn.Module
    loss: Loss
    tensors: Sequence[Tensor]
    block: int
    lr: float = 0.0
    strength: float = 0.0
    full: float = 0.0

    def __call__(self, vector: Tensor) -> Tensor:
        count = len(self.tensors[0])
        value, gradient = vector.new_zeros(()), torch.zeros_like(vector)
        for part in slices(count, self.block):
            share = (part.stop - part.start) / count
            g = grad(self._block)(vector, part)
            value = value + share * (self._block(vector, part) + self.lr / 8 * self.strength * g.dot(g))
            gradient = gradient + share * g
        return value + self.lr / 8 * self.full * gradient.dot(gradient)

    def gradient(self, vector: Tensor) -> Tensor:
        point = vector.clone().requires_grad_()
        return torch.autograd.grad(self(point), point)[0]

    def hessian(self, vector: Tensor) -> Tensor:
        """Dense, `[P, P]`."""
        return jacrev(grad(self))(vector)

    def _block(self, vector: Tensor, part: slice) -> Tensor:
        named, values, offset = parameters(self.module), {}, 0
        for name, p in named.items():
            values[name] = vector[offset : offset + p.numel()].view(p.shape)
            offset += p.numel()
        *inputs, target = (t[part] for t in self.tensors)
        return self.loss(functional_call(self.module, values, tuple(inputs)), target).mean()


def central_difference(
    value: Callable[[Tensor], float], point: Tensor, h: float, directions: Tensor | None = None
) -> Tensor:
    """`(f(x + h e_i) - f(x - h e_i)) / 2 h` for each row e_i of the directions, or for each unit vector."""
    steps = (torch.eye(len(point), dtype=point.dtype) if directions is None else directions) * h
    return torch.tensor([(value(point + u) - value(point - u)) / (2 * h) for u in steps], dtype=point.dtype)


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Philox4x32-10 on Python integers, as in the SC 2011 paper."""
    c, k = list(counter), list(key)
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [product1 // 2**32 ^ c[1] ^ k[0], product1 % 2**32, product0 // 2**32 ^ c[3] ^ k[1], product0 % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def crop_flip(image: Tensor, words: Sequence[int], padding: int, flip: float) -> Tensor:
    """Pads `[C, H, W]` with zeros, cuts at a drawn corner, mirrors: pixel by pixel."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=image.dtype)
    padded[:, padding : padding + height, padding : padding + width] = image
    top, left = (word * (2 * padding + 1) // 2**32 for word in words[:2])
    mirror = words[2] / 2**32 < flip
    cut = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source = width - 1 - column if mirror else column
            cut[:, row, column] = padded[:, top + row, left + source]
    return cut


def by_svd(matrix: Tensor, steps: int = 5, coefficients=(3.4445, -4.7750, 2.0315)) -> Tensor:
    """Newton-Schulz on the singular values alone: `s <- a s + b s**3 + c s**5`."""
    a, b, c = coefficients
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / matrix.norm()
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ v
