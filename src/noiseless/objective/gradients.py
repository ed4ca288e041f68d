"""Loss and gradient of single blocks: the only place that runs the model forward and backward.

Step 3 of a training step. A chunk's blocks are computed together under `torch.func.vmap`, or one after the other by
plain autograd; with a compiler, compiled code computes the whole chunk. The blocks share one parameter vector, or each
has its own, as the penalty's probes need.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._pytree import tree_map_only

from noiseless import keyed
from noiseless.objective import functional, layout
from noiseless.objective.base import square_norms
from noiseless.objective.batchnorm import BlockNorm
from noiseless.objective.blocks import Batch
from noiseless.objective.compiled import Compiler
from noiseless.objective.contribution import BlockGradients
from noiseless.objective.layers import dense_gradients
from noiseless.objective.losses import PerExampleLoss, classifies, count_hits, per_example
from noiseless.objective.space import ParameterSpace
from noiseless.objective.usercode import told

_NOTHING: Mapping[str, Tensor] = MappingProxyType({})
_random: WeakSet[nn.Module] = WeakSet()
"""modules that draw random numbers; the numbers are keyed by block, so blocks are computed one at a time"""


@dataclass(frozen=True)
class BlockLoss:
    """The mean loss of a block as a function of the parameters, and its gradient."""

    module: nn.Module
    loss: PerExampleLoss
    space: ParameterSpace
    norm: BlockNorm
    autocast: torch.dtype | None = None
    """dtype of the operations that `torch.autocast` lists, such as convolutions; None: that of the parameters"""
    compiler: Compiler | None = None
    """compiles the code that computes a chunk; None: nothing is compiled"""

    @contextmanager
    def in_sweep(self) -> Iterator[None]:
        """Context manager around a sweep: batch norm works on norm blocks; a module that writes buffers is refused.

        Yields:
            Nothing.

        Raises:
            ValueError: naming a buffer that the module's forward has written.
        """
        buffers = dict(self.module.named_buffers())
        before = {name: buffer._version for name, buffer in buffers.items()}
        with self.norm.installed(), dense_gradients(self.module), torch.enable_grad():
            yield
        for name, buffer in self.module.named_buffers():
            if buffer is not buffers.get(name) or buffer._version != before[name]:
                raise ValueError(
                    f"the module's forward writes its buffer {name!r}, so its loss depends on earlier forwards; only"
                    " batch norm's statistics are supported. Freeze the layer that does it, or put it in eval()"
                )

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
        together, problem = self._takes_together(batch), None
        if len(batch) == 1 or together:
            if self.compiler is not None and batch.regular and self._follows():
                compiled = self._differentiate_compiled(self.compiler, theta, batch)
                if compiled is not None:
                    return compiled
            try:
                at_once = self._together(theta.ndim == 2, (), record) if together else None
                parts = at_once(theta, batch.target, *batch.inputs) if at_once else self._alone(theta, batch, record)
                return BlockGradients(parts[0], square_norms(parts[0]), *parts[1:])
            except RuntimeError as error:
                if not together:
                    raise
                problem = self._leave_vmap(error)
        thetas = theta if theta.ndim == 2 else theta.expand(len(batch), -1)
        blocks = [self.differentiate(thetas[k], batch.block(k), record) for k in range(len(batch))]
        functional.warn(problem)
        return BlockGradients(*(torch.cat([getattr(one, f.name) for one in blocks]) for f in fields(BlockGradients)))

    @told
    def measure(self, theta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The losses of the blocks of a chunk, from forwards alone; computed as in `differentiate`, but not compiled.

        Args:
            theta: `[P]`.
            batch: the K blocks.

        Returns:
            Loss, summed over each block's examples, and hits: float64 `[K]` each.
        """
        # with gradients enabled, as in `differentiate`: torch's transformers take another way without them
        followed = theta.detach().requires_grad_()

        def one(target: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
            return self._functional(followed, inputs, target, False)[1][:2]

        problem = None
        if self._takes_together(batch):
            try:
                loss, hits = vmap(one)(batch.target, *batch.inputs)
                return loss, hits
            except RuntimeError as error:
                problem = self._leave_vmap(error)
        with self.space.at(theta):
            reports = [self._keyed(batch, k, False)[1] for k in range(len(batch))]
        functional.warn(problem)
        return torch.stack([loss for loss, *_ in reports]), torch.stack([hits for _, hits, *_ in reports])

    def _follows(self) -> bool:
        """Whether code that gets the parameters as an argument can compute the module."""
        return self.module not in _random and functional.follows(self.module, self._key())

    @told
    def check(self, several: bool, batch: Callable[[], Batch]) -> None:
        """Finds out whether blocks can be computed together or compiled, once for a module, loss and mode.

        Args:
            several: whether a sweep computes several blocks together.
            batch: returns the first block.
        """
        needed = (several and self.autocast is None) or self.compiler is not None
        if not needed or self.module in _random or functional.is_known(self.module, self._key()):
            return
        first = batch()

        def as_function(theta: Tensor) -> Tensor:
            state = self.space.split(theta)
            return self._keyed(first, 0, False, lambda *x: functional_call(self.module, state, x))[0]

        functional.check(self.module, self._key(), self.space, lambda: self._keyed(first, 0, False)[0], as_function)

    def _key(self) -> tuple[Hashable, ...]:
        """What the code of a block depends on, besides the module and shapes."""
        return functional.key_of(self.loss), tuple(module.training for module in self.module.modules())

    def _takes_together(self, batch: Batch) -> bool:
        # autocast mixes dtypes, which vmap's rule for batch norm does not support
        return len(batch) > 1 and self.autocast is None and self._follows()

    def _leave_vmap(self, error: RuntimeError) -> str | None:
        """Remembers that blocks are computed one at a time; returns a warning unless it is for random numbers."""
        if "randomness" in str(error):
            _random.add(self.module)
            return None
        functional.set_alone(self.module, self._key())
        return f"blocks are computed one at a time, because the module does not run under torch.func.vmap: {error}"

    def _together(
        self, thetas: bool, names: tuple[str, ...] = (), record: bool = True
    ) -> Callable[..., tuple[Tensor, ...]]:
        """A function (theta, target, *inputs, *held) -> gradients `[K, P]` and reports of K blocks at once."""

        def one(theta: Tensor, target: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            inputs, held = _apart(rest, names)
            gradient, reports = self._gradient(theta, inputs, target, record, held)
            return gradient, *reports

        def together(theta: Tensor, target: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            mapped = [0] * (len(rest) - len(names)) + [None] * len(names)
            return vmap(one, (0 if thetas else None, 0, *mapped))(theta, target, *rest)

        return together

    def _gradient(
        self, theta: Tensor, inputs: tuple[Tensor, ...], target: Tensor, record: bool, held: Mapping[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        function = grad_and_value(lambda t: self._functional(t, inputs, target, record, held), has_aux=True)
        gradient, (_, reports) = function(theta)
        return gradient, reports

    def _differentiate_compiled(self, compiler: Compiler, theta: Tensor, batch: Batch) -> BlockGradients | None:
        """`differentiate` by compiled code; None if the module cannot be compiled."""
        names, held = self._held()
        if len(batch) == 1:  # theta [P] and [1, P] share their code
            theta = theta.reshape(-1)
        together = self._together(theta.ndim == 2, names)

        def function(theta: Tensor, target: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
            if len(target) > 1:
                gradient, *reports = together(theta, target, *rest)
                return gradient, gradient.double().square().sum(1), *reports
            inputs, state = _apart(rest, names)
            images = layout.preferred(self.module, tuple(x[0] for x in inputs))
            one, report = self._gradient(theta, images, target[0], True, state)
            return tuple(t[None] for t in (one, one.double().square().sum(), *report))

        key = (self.module, self.norm.norm_block, self.autocast, *self._key(), names)
        arguments = (x.contiguous() for x in (theta, batch.target, *batch.inputs))
        parts = compiler.call(key, function, *arguments, *held)
        return None if parts is None else BlockGradients(*parts)

    def _held(self) -> tuple[tuple[str, ...], list[Tensor]]:
        """Names and tensors of the module's buffers and of those parameters that are not in the space (frozen)."""
        trained = set(self.space.names)
        state = [*self.module.named_parameters(), *self.module.named_buffers()]
        named = {name: tensor.detach() for name, tensor in state if name not in trained}
        return tuple(named), list(named.values())

    def value(self, batch: Batch, k: int) -> Tensor:
        """The mean loss of block k of a batch at the parameters: a scalar, differentiable in them."""
        return self._keyed(batch, k, False)[0]

    def _alone(self, theta: Tensor, batch: Batch, record: bool) -> tuple[Tensor, ...]:
        """Gradient and reports of a batch of one block."""
        with self.space.at(theta.reshape(-1)):
            loss, reports = self._keyed(batch, 0, record)
            return tuple(t[None] for t in (self.space.gradient(loss), *reports))

    def _keyed(
        self, batch: Batch, k: int, record: bool, forward: Callable[..., Any] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `_report`, of block k; random numbers are keyed by the block. Without `forward`, it is the module's."""

        def report(inputs: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            with keyed.torch_generators(batch.seed, "module", batch.step, batch.first + k, self.space.device):
                return self._report(forward or self.module, inputs, batch.target[k], record)

        return layout.call(self.module, tuple(x[k] for x in batch.inputs), report)

    def _report(
        self, forward: Callable[..., Any], inputs: tuple[Tensor, ...], target: Tensor, record: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Mean loss of one block, and (summed loss, hits, statistics)."""
        if record:
            self.norm.start()
        self.norm.examples = len(target)
        dtype, device = self.space.theta.dtype, self.space.device
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None, cache_enabled=False):
            output = forward(*inputs)
        if self.autocast is not None:
            output = tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, output)
        losses = per_example(self.loss, output, target)
        statistics = self.norm.collect(losses.detach()) if record else losses.new_zeros(0, 0)
        counted = classifies(self.loss) and isinstance(output, Tensor)
        hits = count_hits(output.detach(), target) if counted else losses.new_full((), torch.nan, dtype=torch.float64)
        return losses.mean(), (losses.detach().sum(dtype=torch.float64), hits, statistics)

    def _functional(
        self,
        theta: Tensor,
        inputs: tuple[Tensor, ...],
        target: Tensor,
        record: bool,
        held: Mapping[str, Tensor] = _NOTHING,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `_report`, as a function of theta `[P]`; `held`: frozen parameters and buffers."""
        state = self.space.split(theta) | dict(held)
        return self._report(lambda *x: functional_call(self.module, state, x), inputs, target, record)


def _apart(rest: tuple[Tensor, ...], names: tuple[str, ...]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Splits a tuple into inputs, and frozen parameters and buffers by name."""
    count = len(rest) - len(names)
    return rest[:count], dict(zip(names, rest[count:], strict=True))
