"""Loss and gradient of single blocks: the only place that runs the model forward and backward.

Step 3 of a training step. A chunk's blocks are computed together under `torch.func.vmap`, or one after the other by
plain autograd; with a compiler, compiled code computes the whole chunk. The blocks share one parameter vector, or each
has its own, as the penalty's probes need.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from noiseless import keyed
from noiseless.examples.blocks import Batch
from noiseless.examples.trees import Inputs, Tree, called, mapped
from noiseless.losses.scoring import Scoring
from noiseless.objective import functional, layout, reach
from noiseless.objective.base import square_norms
from noiseless.objective.batchnorm import BlockNorm
from noiseless.objective.compiled import Compiler
from noiseless.objective.contribution import BlockGradients, BlockScores
from noiseless.objective.space import ParameterSpace
from noiseless.objective.sweeping import sweeping
from noiseless.objective.usercode import outside_vmap, told

_NOTHING: Mapping[str, Tensor] = MappingProxyType({})
_random: WeakSet[nn.Module] = WeakSet()
"""modules that draw random numbers; the numbers are keyed by block, so blocks are computed one at a time"""


@dataclass(frozen=True)
class BlockLoss:
    """The mean loss of a block as a function of the parameters, and its gradient."""

    module: nn.Module
    scoring: Scoring
    space: ParameterSpace
    norm: BlockNorm
    autocast: torch.dtype | None = None
    """dtype of the operations that `torch.autocast` lists, such as convolutions; None: that of the parameters"""
    compiler: Compiler | None = None
    """compiles the code that computes a chunk; None: nothing is compiled"""
    portable: bool = False
    """whether operations have the same bits on every CPU; blocks are then computed one at a time"""

    def in_sweep(self) -> AbstractContextManager[None]:
        """Context manager around a sweep, see `sweeping`."""
        return sweeping(self.module, self.norm, self.portable)

    @told
    def differentiate(self, theta: Tensor, batch: Batch, record: bool = False) -> BlockGradients:
        """The gradients of the blocks of a chunk.

        Args:
            theta: parameters `[P]`, or `[K, P]` with one row for each block.
            batch: the K blocks.
            record: whether to record batch-norm statistics.

        Returns:
            Gradients, losses, hits and statistics by block.

        Raises:
            RuntimeError: in this package; an error of the module or the loss becomes a ModuleError.
        """
        together, failed = self._takes_together(batch), None
        if len(batch) == 1 or together:
            if self.compiler is not None and batch.regular and self.follows():
                compiled = self._differentiate_compiled(self.compiler, theta, batch)
                if compiled is not None:
                    return compiled
            try:
                at_once = self._together(theta.ndim == 2, batch.size, record) if together else None
                parts = at_once(theta, batch.target, batch.inputs, {}) if at_once else self._alone(theta, batch, record)
                parts = (*parts, self._unreached(len(batch))) if at_once else parts
                gradient, *scores, statistics, unreached = parts
                return BlockGradients(*(*scores, gradient, square_norms(gradient), statistics, unreached))
            except Exception as error:  # vmap raises RuntimeError, code that meets its tensors anything
                if not together:
                    raise
                failed = error
        thetas = theta if theta.ndim == 2 else theta.expand(len(batch), -1)
        batch = batch if failed is None else replace(batch, regular=False)  # what does not run is not compiled
        blocks = [self.differentiate(thetas[k], batch.block(k), record) for k in range(len(batch))]
        functional.warn(self._leave_vmap(failed))
        return BlockGradients(*(torch.cat([getattr(one, f.name) for one in blocks]) for f in fields(BlockGradients)))

    @told
    def measure(self, theta: Tensor, batch: Batch) -> BlockScores:
        """The scores of the blocks of a chunk, from forwards alone; computed as in `differentiate`, but not compiled.

        Args:
            theta: `[P]`.
            batch: the K blocks.

        Returns:
            The scores by block.
        """
        # with gradients enabled, as in `differentiate`: torch's transformers take another way without them
        followed = theta.detach().requires_grad_()

        def one(target: Tree, inputs: Inputs) -> tuple[Tensor, ...]:
            return self.as_function(followed, inputs, target, batch.size, False)[1][:-1]

        failed = None
        if self._takes_together(batch):
            try:
                return BlockScores(*functional.mapped_over_blocks(one)(batch.target, batch.inputs))
            except Exception as error:  # as in `differentiate`
                failed = error
        with self.space.at(theta):
            reports = [self._keyed(batch, k, False)[1] for k in range(len(batch))]
        functional.warn(self._leave_vmap(failed))
        return BlockScores(*(torch.stack(scores) for scores in zip(*(report[:-1] for report in reports), strict=True)))

    def follows(self) -> bool:
        """Whether code that gets the parameters as an argument can compute the module."""
        return self.module not in _random and functional.known(self.module, self.key()).follows

    def _unreached(self, blocks: int) -> Tensor:
        """Which parameters are not reached by blocks that are computed together, as bits, `[blocks, R]`."""
        unreached = functional.known(self.module, self.key()).unreached or (False,) * len(self.space.sizes)
        return reach.packed(unreached, self.space.device).expand(blocks, -1)

    @told
    def check(self, several: bool, batch: Callable[[], Batch]) -> None:
        """Finds out whether blocks can be computed together or compiled, once for a module, loss and mode.

        Args:
            several: whether a sweep computes several blocks together.
            batch: returns the first block.
        """
        needed = (several and self.autocast is None and not self.portable) or self.compiler is not None
        if not needed or self.module in _random or functional.is_known(self.module, self.key()):
            return
        first = batch()

        def as_function(theta: Tensor) -> Tensor:
            state = self.space.split(theta)
            return self._keyed(first, 0, False, self._with(state))[0]

        functional.check(self.module, self.key(), self.space, lambda: self._keyed(first, 0, False)[0], as_function)

    def key(self) -> tuple[Hashable, ...]:
        """What the code of a block depends on, besides the module and shapes."""
        training = tuple(module.training for module in self.module.modules())
        return self.scoring.key, training, tuple(self.space.names)

    def _takes_together(self, batch: Batch) -> bool:
        # autocast mixes dtypes, which vmap's rule for batch norm does not support
        return len(batch) > 1 and self.autocast is None and not self.portable and self.follows()

    def _leave_vmap(self, error: Exception | None) -> str | None:
        """Remembers that blocks are computed one at a time; returns a warning unless it is for random numbers."""
        if error is None:
            return None
        if "randomness" in str(error):
            _random.add(self.module)
            return None
        functional.set_alone(self.module, self.key())
        return outside_vmap(error)

    def _together(self, thetas: bool, examples: int, record: bool = True) -> Callable[..., tuple[Tensor, ...]]:
        """A function (theta, target, inputs, held) -> gradients `[K, P]` and reports of K blocks at once."""

        def one(theta: Tensor, target: Tree, inputs: Inputs, held: dict[str, Tensor]) -> tuple[Tensor, ...]:
            gradient, reports = self._gradient(theta, inputs, target, examples, record, held)
            return gradient, *reports

        return functional.mapped_over_blocks(one, (0 if thetas else None, 0, 0, None))

    def _gradient(
        self, theta: Tensor, inputs: Inputs, target: Tree, examples: int, record: bool, held: Mapping[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        function = grad_and_value(lambda t: self.as_function(t, inputs, target, examples, record, held), has_aux=True)
        gradient, (_, reports) = function(theta)
        return gradient, reports

    def _differentiate_compiled(self, compiler: Compiler, theta: Tensor, batch: Batch) -> BlockGradients | None:
        """`differentiate` by compiled code; None if the module cannot be compiled."""
        held, keeps = self.held(), layout.splits_sums(self.module, self.autocast)
        leaves, form = tree_flatten((batch.target, batch.inputs))
        names, count, examples, several = tuple(held), len(leaves), batch.size, len(batch) > 1
        theta = theta if several else theta.reshape(-1)  # [P] and [1, P] share their code
        together = self._together(theta.ndim == 2, examples)

        def function(theta: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            target, inputs = tree_unflatten(tensors[:count], form)
            state = dict(zip(names, tensors[count:], strict=True))
            if several:
                gradient, *reports = together(theta, target, inputs, state)
                return gradient, gradient.double().square().sum(1), *reports
            target, inputs = mapped(lambda t: t[0], (target, inputs))
            inputs = layout.preferred(self.module, inputs, self.autocast)
            one, report = self._gradient(theta, inputs, target, examples, True, state)
            return tuple(t[None] for t in (one, one.double().square().sum(), *report))

        key = (self.module, self.norm.norm_block, self.autocast, *self.key(), names, form, tuple(batch.index.shape))
        arguments = (x.contiguous() for x in (theta, *leaves))
        parts = compiler.call(key, function, *arguments, *held.values(), keep_layout=keeps)
        if parts is None:
            return None
        gradient, square, *scores, statistics = parts
        return BlockGradients(*(*scores, gradient, square, statistics, self._unreached(len(batch))))

    def held(self) -> dict[str, Tensor]:
        """The module's buffers and those parameters that are not in the space (frozen), by name."""
        trained = set(self.space.names)
        state = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: tensor.detach() for name, tensor in state if name not in trained}

    def value(self, batch: Batch, k: int) -> tuple[Tensor, Tensor]:
        """The mean loss of block k of a batch at the parameters, a scalar, differentiable in them; and its weight."""
        mean, (_, weight, *_) = self._keyed(batch, k, False)
        return mean, weight

    def as_it_stands(self, batch: Batch) -> Tensor:
        """The mean loss of a batch of one block by the module as it is, outside a sweep: it may write its buffers."""
        with keyed.torch_generators(batch.seed, "module", batch.step, batch.first, self.space.device):
            inputs, target = mapped(lambda t: t[0], (batch.inputs, batch.target))
            return self._report(self.module, inputs, target, batch.size, False)[0]

    def _alone(self, theta: Tensor, batch: Batch, record: bool) -> tuple[Tensor, ...]:
        """Gradient and reports of a batch of one block."""
        with self.space.at(theta.reshape(-1)):
            loss, reports = self._keyed(batch, 0, record)
            derivatives = self.space.derivatives(loss)
            unreached = reach.packed(tuple(part is None for part in derivatives), self.space.device)
            return tuple(t[None] for t in (self.space.joined(derivatives), *reports, unreached))

    def _keyed(
        self, batch: Batch, k: int, record: bool, forward: Callable[..., Any] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `_report`, of block k; random numbers are keyed by the block. Without `forward`, it is the module's."""
        inputs, target = mapped(lambda t: t[k], (batch.inputs, batch.target))

        def report(inputs: Inputs) -> tuple[Tensor, tuple[Tensor, ...]]:
            with keyed.torch_generators(batch.seed, "module", batch.step, batch.first + k, self.space.device):
                return self._report(forward or self.module, inputs, target, batch.size, record)

        return layout.call(self.module, inputs, report, self.autocast)

    def _report(
        self, forward: Callable[..., Any], inputs: Inputs, target: Tree, examples: int, record: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mean loss of one block, and its reports: loss, weight, hits and metrics as in `BlockScores`, statistics."""
        if record:
            self.norm.start()
        self.norm.examples = examples
        dtype, device = self.space.theta.dtype, self.space.device
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None, cache_enabled=False):
            output = called(forward, inputs)
        if self.autocast is not None:
            output = tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, output)
        mean, scores = self.scoring(output, target, examples)
        statistics = self.norm.collect(examples, mean.detach()) if record else mean.new_zeros(0, 0)
        return mean, (*scores, statistics)

    def as_function(
        self,
        theta: Tensor,
        inputs: Inputs,
        target: Tree,
        examples: int,
        record: bool,
        held: Mapping[str, Tensor] = _NOTHING,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `_report`, as a function of theta `[P]`; `held`: frozen parameters and buffers."""
        state = self.space.split(theta) | dict(held)
        return self._report(self._with(state), inputs, target, examples, record)

    def _with(self, state: dict[str, Tensor]) -> Callable[..., Any]:
        """The module's forward with other parameters and buffers."""
        return lambda *x, **named: functional_call(self.module, state, x, named)
