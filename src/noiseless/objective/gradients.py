"""Loss and gradient of single blocks: the only place that runs the model forward and backward.

Steps 2 and 3 of a training step. A chunk's blocks are computed together under `torch.func.vmap`, or one after the
other by plain autograd, each at shared parameters or at its own (as the penalty's probe needs).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from noiseless import keyed
from noiseless.objective import plain
from noiseless.objective.batchnorm import BlockNorm
from noiseless.objective.losses import PerExampleLoss, count_hits, per_example
from noiseless.objective.space import ParameterSpace

_random: WeakSet[nn.Module] = WeakSet()
"""modules found to draw random numbers: keyed by block, they are computed one block at a time"""


@dataclass(frozen=True)
class Batch:
    """The examples of one chunk: K blocks of n."""

    first: int
    """number of the first block"""
    inputs: tuple[Tensor, ...]
    """each `[K, n, ...]`"""
    target: Tensor
    """`[K, n, ...]`"""

    def __len__(self) -> int:
        return len(self.target)

    @property
    def counts(self) -> Tensor:
        """Examples in each block, float64 `[K]`."""
        return torch.full((len(self),), self.target.shape[1], dtype=torch.float64, device=self.target.device)


@dataclass(frozen=True)
class BlockGradients:
    """What the blocks of one chunk report."""

    gradient: Tensor
    """of each block's mean loss, `[K, P]`"""
    loss: Tensor
    """summed over each block's examples, float64 `[K]`"""
    hits: Tensor
    """float64 `[K]`; NaN where this is no classification"""
    statistics: Tensor
    """batch-norm statistics of each norm block, `[K, G, S]`; empty unless recorded"""


def hessian_product(gradient: Tensor, theta: Tensor, v: Tensor) -> Tensor:
    """`H v` from a gradient `[P]` that was made with `create_graph=True`; 0 where it does not depend on theta."""
    if not gradient.requires_grad:
        return torch.zeros_like(theta)
    return torch.autograd.grad(gradient, theta, v, retain_graph=True, materialize_grads=True)[0]


@dataclass(frozen=True)
class BlockLoss:
    """The mean loss of a block as a function of the parameters, and its gradient."""

    module: nn.Module
    loss: PerExampleLoss
    space: ParameterSpace
    norm: BlockNorm
    seed: int
    """with `step` and the block's number it keys the random numbers that the module draws"""
    step: int

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Within it, batch norm works on norm blocks, and a module that writes other buffers is refused.

        Yields:
            Nothing.

        Raises:
            ValueError: naming the buffer that the module's forward has written.
        """
        buffers = dict(self.module.named_buffers())
        before = {name: buffer._version for name, buffer in buffers.items()}
        with self.norm.installed(), torch.enable_grad():
            yield
        for name, buffer in self.module.named_buffers():
            if buffer is not buffers.get(name) or buffer._version != before[name]:
                raise ValueError(
                    f"the module's forward writes its buffer {name!r}, so its loss depends on what was asked before;"
                    " only batch norm's statistics are understood. Freeze the layer that does it, or put it in eval()"
                )

    def differentiate(self, theta: Tensor, batch: Batch, record: bool = False) -> BlockGradients:
        """The gradients of the blocks of a chunk.

        Args:
            theta: `[P]`, or `[K, P]` with the parameters of each block.
            batch: the K blocks.
            record: whether batch norm's statistics are asked for.

        Returns:
            Gradients, losses, hits and statistics by block.

        Raises:
            ValueError: if the module does not run under vmap, with the remedy.
        """
        if len(batch) > 1 and self.module not in _random:
            in_dims = (0 if theta.ndim == 2 else None, 0, 0)
            function = grad_and_value(lambda t, x, y: self._report(t, x, y, record), has_aux=True)
            try:
                gradient, (_, reports) = vmap(function, in_dims)(theta, batch.inputs, batch.target)
                return BlockGradients(gradient, *reports)
            except RuntimeError as error:
                if "randomness" not in str(error):
                    raise ValueError(
                        f"the module does not run under torch.func.vmap, set chunk to 1 ({error})"
                    ) from error
                _random.add(self.module)
        thetas = theta if theta.ndim == 2 else theta.expand(len(batch), -1)
        found = [self._differentiate_one(thetas[k], batch, k, record) for k in range(len(batch))]
        return BlockGradients(*(torch.stack(parts) for parts in zip(*found, strict=True)))

    def value(self, theta: Tensor, batch: Batch, k: int) -> Tensor:
        """The mean loss of block k of a batch at `theta [P]`: a scalar, differentiable to any order."""
        self.norm.any_order = True
        try:
            with plain.PlainLayerNorm():
                return self._keyed(theta, batch, k, False)[0]
        finally:
            self.norm.any_order = False

    def _differentiate_one(self, theta: Tensor, batch: Batch, k: int, record: bool) -> tuple[Tensor, ...]:
        theta = theta.detach().requires_grad_()
        loss, reports = self._keyed(theta, batch, k, record)
        return torch.autograd.grad(loss, theta)[0], *reports

    def _keyed(self, theta: Tensor, batch: Batch, k: int, record: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        inputs = tuple(x[k] for x in batch.inputs)
        with keyed.torch_generators(self.seed, "module", self.step, batch.first + k, theta.device):
            return self._report(theta, inputs, batch.target[k], record)

    def _report(
        self, theta: Tensor, inputs: tuple[Tensor, ...], target: Tensor, record: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mean loss of one block, and (summed loss, hits, statistics)."""
        if record:
            self.norm.start()
        output = functional_call(self.module, self.space.split(theta), inputs)
        losses = per_example(self.loss, output, target)
        statistics = self.norm.collect(losses.detach()) if record else losses.new_zeros(0, 0)
        hits = count_hits(output.detach(), target)
        return losses.mean(), (losses.detach().sum(dtype=torch.float64), hits, statistics)
