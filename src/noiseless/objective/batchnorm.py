"""Batch normalisation inside a sweep: statistics on norm blocks, and buffers that only an accepted sweep writes.

While a sweep runs, the model's batch-norm layers normalise each norm block by itself and report its mean and variance
instead of writing their buffers. So probes do not change the buffers, and the running statistics become a weighted sum
over norm blocks that does not depend on when and where each was computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from noiseless.examples.blocks import Blocks
from noiseless.objective import plain
from noiseless.objective.normalise import NormBlocks
from noiseless.objective.replaced import BatchNormBy, scratch_buffers

Statistics = Literal["average", "ema"]


class BlockNorm:
    """The batch-norm layers of a model, which work on norm blocks during a sweep.

    A subclass that overrides `forward`, such as timm's batch norm with activation, keeps its forward; only its call of
    `torch.nn.functional.batch_norm` is replaced. It must make exactly one such call in a forward, else the sweep raises
    an error.

    Args:
        module: the model, with or without batch norm.
        norm_block: examples that are normalised together (ghost batch norm where it is below the block).
        statistics: `"average"`: the running mean and variance become the mean over all norm blocks of a sweep, weighted
            by count; `"ema"`: torch's exponential average over the norm blocks in their order.

    Raises:
        ValueError: for a layer that a sweep cannot compute (`SyncBatchNorm`), an unknown `statistics`, or `"ema"` with
            a layer whose momentum is None.
    """

    def __init__(self, module: nn.Module, norm_block: int, statistics: Statistics):
        if statistics not in ("average", "ema"):
            raise ValueError(f'statistics must be "average" or "ema", not {statistics!r}')
        self.norm_block = norm_block
        self.statistics = statistics
        self._layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)}
        for name, layer in self._layers.items():
            if isinstance(layer, nn.SyncBatchNorm):
                raise _differs(name, layer)
            if statistics == "ema" and layer.momentum is None:
                raise ValueError(f'{name} has momentum None (cumulative average): use statistics="average"')
        self._tracked = {name: layer for name, layer in self._layers.items() if _tracks(layer)}
        self._lengths = [_length(layer) for layer in self._tracked.values()]
        self.length = sum(self._lengths)
        """S: how many numbers a norm block reports"""
        self._recorded: dict[str, list[Tensor]] | None = None
        self.any_order = False
        """whether forwards must be differentiable more than twice, which torch's fused batch norm is not"""
        self.examples: int | None = None
        """number of examples in the block that is computed; None: as many as rows reach a layer"""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Context manager in which the layers normalise norm blocks and do not write their buffers.

        This holds for layers in training mode and for those without running statistics; the others are unchanged.

        Yields:
            Nothing.
        """
        active = {name: layer for name, layer in self._layers.items() if layer.training or not _tracks(layer)}
        for name, layer in active.items():
            layer.forward = self._forward(name, layer)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in active.values():
                del layer.forward

    def start(self) -> None:
        """Starts to record the statistics of the next forward, that of one block, for `collect`."""
        self._recorded = {}

    def collect(self, examples: int, like: Tensor) -> Tensor:
        """Ends recording and returns the statistics of the block.

        Args:
            examples: n, number of examples in the block.
            like: a tensor of the dtype and device that the statistics are to have.

        Returns:
            One row for each norm block, `[G, S]`: for each layer with running statistics, in the module's order, its
            means, its unbiased variances, and 1. A layer that was not called has zeros, one that was called several
            times the mean over its calls.
        """
        recorded, self._recorded = self._recorded or {}, None
        groups = self.groups(examples)
        parts = [like.new_zeros(groups, 0)]
        for name, layer in self._tracked.items():
            calls = recorded.get(name)
            if calls:
                report = calls[0] if len(calls) == 1 else torch.stack(calls).mean(0)
                parts += [report, report.new_ones(groups, 1)]
            else:
                parts.append(like.new_zeros(groups, _length(layer)))
        return torch.cat(parts, 1)

    def groups(self, examples: int) -> int:
        """Number of norm blocks in a block of that many examples; the last one may be short."""
        return -(-examples // self.norm_block)

    def count(self, blocks: Blocks) -> int:
        """Number of norm blocks in all blocks of a partition."""
        full, rest = divmod(blocks.count, blocks.size)
        return full * self.groups(blocks.size) + self.groups(rest)

    def weights(self, first: int, blocks: int, examples: int, visits: int, total: int) -> Tensor:
        """The weights with which norm blocks enter the running statistics.

        Args:
            first: number of reports before these in the sweep; a norm block gives one at each visit.
            blocks: number of blocks, which report one after the other.
            examples: number of examples in each of them.
            visits: how often a block is visited; at each visit all its norm blocks report in their order.
            total: number of reports in the sweep.

        Returns:
            float64 `[blocks * visits * groups(examples), S]`: in `"average"` the number of examples (`write` divides by
            the sum of weights); in `"ema"` `m (1 - m)**later`, where m is the layer's momentum and `later` the number
            of reports that follow.
        """
        groups = self.groups(examples)
        if self.statistics == "average":
            sizes = torch.full((groups,), float(self.norm_block), dtype=torch.float64)
            sizes[-1] = examples - (groups - 1) * self.norm_block
            return sizes.repeat(blocks * visits)[:, None].expand(-1, self.length)
        later = total - 1 - torch.arange(first, first + blocks * visits * groups, dtype=torch.float64)
        momenta = torch.tensor([float(layer.momentum or 0.0) for layer in self._tracked.values()], dtype=torch.float64)
        momentum = momenta.repeat_interleave(torch.tensor(self._lengths, dtype=torch.int64))  # empty without layers
        return momentum * (1 - momentum) ** later[:, None]

    def write(self, summed: Tensor, norm_blocks: int, old_share: float = 0.0) -> None:
        """Writes the running statistics of an accepted sweep into the layers' buffers.

        A layer that was not called keeps its buffers; the last number of its part, the sum of its weights, is then 0.

        Args:
            summed: the weighted sum of the norm blocks' reports, float64 `[S]`.
            norm_blocks: number of norm blocks in the sweep.
            old_share: weight of the buffers' old values in an `"average"`; they are of earlier sweeps over other
                examples.
        """
        for layer, report in zip(self._tracked.values(), summed.split(self._lengths), strict=True):
            mean, variance, weight = report.split((layer.num_features, layer.num_features, 1))
            if not weight:
                continue
            for buffer, part in ((layer.running_mean, mean), (layer.running_var, variance)):
                assert buffer is not None
                if self.statistics == "ema":
                    buffer.copy_(buffer.double() * (1 - weight) + part)
                else:
                    buffer.copy_(
                        buffer.double() * old_share + part / weight * (1 - old_share) if old_share else part / weight
                    )
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.add_(norm_blocks)

    def _forward(self, name: str, layer: _BatchNorm) -> Callable[..., Tensor]:
        """The replacement of a layer's forward; an overridden forward is run with another batch norm inside."""
        if type(layer).forward is not _BatchNorm.forward:
            return self._own_forward(name, layer)

        def forward(x: Tensor) -> Tensor:
            layer._check_input_dim(x)
            return self._batch_norm(name, layer, x, layer.weight, layer.bias, layer.eps)

        return forward

    def _own_forward(self, name: str, layer: _BatchNorm) -> Callable[..., Tensor]:
        forward_of_layer = layer.forward

        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            def batch_norm(
                input: Tensor,
                running_mean: Tensor | None,
                running_var: Tensor | None,
                weight: Tensor | None = None,
                bias: Tensor | None = None,
                training: bool = False,
                momentum: float = 0.1,
                eps: float = 1e-5,
            ) -> Tensor:
                if not training or input.shape[:2] != x.shape[:2]:
                    raise _differs(name, layer)
                return self._batch_norm(name, layer, input, weight, bias, eps)

            with scratch_buffers(layer) as written, BatchNormBy(batch_norm) as replaced:
                output = forward_of_layer(x, *args, **kwargs)
            if replaced.calls != 1 or written():
                raise _differs(name, layer)
            return output

        return forward

    def _batch_norm(
        self, name: str, layer: _BatchNorm, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        """Normalises each norm block of x `[n, C, ...]` by itself; records its statistics between start and collect."""
        if x.shape[1] != layer.num_features:
            raise ValueError(f"batch norm {name!r} has {layer.num_features} channels, but gets {x.shape[1]}")
        size = self._rows(name, len(x))
        full_blocks, rest = divmod(len(x), size)
        if x[:1, :1].numel() * (rest or size) < 2:
            raise ValueError(
                f"the last norm block has one value a channel in batch norm {name!r}, so its variance is not defined:"
                " choose a block, norm block and number of parts that do not leave one example over"
            )
        # without a rest x is not sliced, because the backward of a slice copies
        cut = [(x, full_blocks)] if not rest else [(x[: full_blocks * size], full_blocks), (x[-rest:], 1)]
        outputs = [self._normalise(part, groups, weight, bias, eps) for part, groups in cut if groups]
        if self._recorded is not None and _tracks(layer):
            reports = [report for _, report in outputs]
            self._recorded.setdefault(name, []).append(reports[0] if len(reports) == 1 else torch.cat(reports))
        return outputs[0][0] if len(outputs) == 1 else torch.cat([output for output, _ in outputs])

    def _rows(self, name: str, rows: int) -> int:
        """Rows that are normalised together: a norm block's, or all where examples have several rows or share them."""
        if self.examples in (None, rows):
            return self.norm_block
        if self.examples > self.norm_block:
            raise ValueError(
                f"batch norm {name!r} gets {rows} rows of a block of {self.examples} examples (frames or views in the"
                f" batch dimension?), so it cannot be cut into norm blocks of {self.norm_block} examples: make"
                " norm_block the block size, which normalises all rows of a block together"
            )
        return rows

    def _normalise(
        self, x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Batch norm of `groups` equal parts of x `[n, C, ...]`; means and unbiased variances, `[groups, 2 C]`."""
        norm_blocks = x.reshape(groups, len(x) // groups, *x.shape[1:])
        normalise = plain.batch_norm if self.any_order else NormBlocks.apply
        normalised, first, rest, variance = normalise(norm_blocks, weight, bias, eps)
        count = norm_blocks[0, :, 0].numel()
        return normalised.reshape(x.shape), torch.cat((first + rest, variance * (count / (count - 1))), 1)


def _differs(name: str, layer: nn.Module) -> ValueError:
    return ValueError(
        f"{name} is a {type(layer).__name__}, whose forward differs from torch's BatchNorm: its statistics"
        " cannot be computed for each norm block; use torch.nn.BatchNorm1d/2d/3d"
    )


def _length(layer: _BatchNorm) -> int:
    """How many numbers a layer reports: means, variances, and 1."""
    return 2 * layer.num_features + 1


def _tracks(layer: _BatchNorm) -> bool:
    return layer.running_mean is not None
