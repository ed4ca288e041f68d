"""What the sweep over modules compares with: plain autograd through the module, block by block.

Nothing here imports noiseless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from module_cases.case import Case, wide

STEP = 1e-4
"""L2 norm of a step of `_difference`: its error is STEP**4 times a fifth derivative plus 1e-16 / STEP"""


class Block(NamedTuple):
    inputs: Any
    target: Any
    weight: float


class Plain:
    """Value, gradient, penalised gradients and Hessian products of a case, in float64; or the module as it is."""

    def __init__(self, case: Case, double: bool = True):
        self.case, self.module = case, case.for_oracle(case.module()) if double else case.module()
        self.per_example = case.loss_in(torch.float64 if double else torch.float32)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        data = wide(case.data) if double else case.data
        if isinstance(data, Mapping):
            inputs, target = {k: v for k, v in data.items() if k != "labels"}, data["labels"]
        else:
            *inputs, target = data
        count = len(tree_leaves(target)[0])
        parts = [slice(first, min(first + case.block, count)) for first in range(0, count, case.block)]
        cuts = [tree_map(lambda x, part=part: x[part], (inputs, target)) for part in parts]
        self.blocks = [Block(x, y, float(case.weight(y))) for x, y in cuts]

    def loss(self, block: Block) -> Tensor:
        """The mean loss of a block."""
        x = tree_map(torch.clone, block.inputs)
        output = self.module(**x) if isinstance(x, Mapping) else self.module(*x)
        values = self.per_example(output, block.target)
        if isinstance(values, tuple):
            values, weights = values
            return (values * weights).sum() / weights.sum()
        return values.flatten(1).mean(1).mean() if values.ndim > 1 else values.mean()

    def gradient(self, block: Block, create_graph: bool = False) -> Tensor:
        return self._joined(self.loss(block), create_graph)

    def product(self, block: Block, v: Tensor) -> Tensor:
        """H v of a block, by double backward or by differences."""
        if not self.case.doubly:
            return self._difference(lambda: self.gradient(block), v)
        with sdpa_kernel(SDPBackend.MATH):  # the only kernel of attention that has a second derivative
            gradient = self.gradient(block, create_graph=True)
            return self._joined(gradient, False, v)

    def mean(self, of_block: Callable[[Block], Any]) -> Any:
        """The mean over the blocks, by weight."""
        total = sum(block.weight for block in self.blocks)
        return sum(of_block(block) * (block.weight / total) for block in self.blocks)

    def penalised(self, method: str, scale: float, eps: float) -> Tensor:
        """`mean_b (g_b + scale H_b g_b)`, with H_b g_b exact or by central differences with probes of length eps."""

        def of_block(block: Block) -> Tensor:
            g = self.gradient(block)
            if method == "exact":
                return g + scale * self.product(block, g)
            if not g.any():
                return g
            h = eps / float(g.norm())
            ahead, behind = (self._at(sign * h * g, lambda: self.gradient(block)) for sign in (1, -1))
            return g + scale * (ahead - behind) / (2 * h)

        return self.mean(of_block)

    def difference(self, v: Tensor) -> Tensor:
        """H v of the mean loss, by differences of its gradient."""
        return self._difference(lambda: self.mean(self.gradient), v)

    def _difference(self, gradient: Callable[[], Tensor], v: Tensor) -> Tensor:
        h = STEP / max(float(v.norm()), 1e-300)
        near, far = (self._at(k * h * v, gradient) - self._at(-k * h * v, gradient) for k in (1, 2))
        return (8 * near - far) / (12 * h)

    def _at(self, shift: Tensor, gradient: Callable[[], Tensor]) -> Tensor:
        before = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            for p, part in zip(self.parameters, shift.split([p.numel() for p in self.parameters]), strict=True):
                p.add_(part.view(p.shape))
        try:
            return gradient()
        finally:
            with torch.no_grad():
                for p, old in zip(self.parameters, before, strict=True):
                    p.copy_(old)

    def _joined(self, value: Tensor, create_graph: bool, v: Tensor | None = None) -> Tensor:
        if not value.requires_grad:
            return torch.cat([torch.zeros_like(p).reshape(-1) for p in self.parameters])
        parts = torch.autograd.grad(value, self.parameters, v, create_graph=create_graph, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, self.parameters, strict=True)]
        return torch.cat([(g.to_dense() if g.is_sparse else g).reshape(-1) for g in filled])
