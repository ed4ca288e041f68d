"""The empirical risk: the mean loss over all examples, from one sweep over the blocks.

Steps 2 to 6 of a training step: each block's gradient may be corrected (by a penalty) and clipped, then enters the sum
with its count as weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor, nn

from noiseless.objective.base import FORWARD, Evaluation, Measurement, Objective, check_vectors, clipped
from noiseless.objective.batchnorm import BlockNorm, Statistics
from noiseless.objective.blocks import Batch, Blocks, Chunk, Examples, TensorExamples, check_norm_block, check_size
from noiseless.objective.compiled import Compiler
from noiseless.objective.exactsum import exact_total
from noiseless.objective.gradients import BlockGradients, BlockLoss, hessian_product
from noiseless.objective.losses import PerExampleLoss
from noiseless.objective.partial import SCALARS, Partial
from noiseless.objective.space import parameter_space
from noiseless.objective.workers import Alone, Workers

Correction = Callable[[Tensor, Batch, BlockGradients], tuple[Tensor, Tensor, list[Tensor]]]
"""(theta `[P]`, batch, its block gradients) -> (the corrected gradients `[K, P]`, penalty of each block, float64 `[K]`,
batch-norm statistics of further visits, each `[K, G, S]`)"""


@dataclass(eq=False)
class EmpiricalRisk(Objective):
    """The mean loss of a module over a full data set.

    `L(theta) = (1 / N) sum_i loss(model(x_i), y_i)`, in which batch-norm layers in training mode see norm blocks. With
    g_b the gradient of block b's mean loss and n_b its count, the gradient is `(1 / N) sum_b n_b g_b`. The module is
    asked in the mode, `train()` or `eval()`, in which it stands. `dataclasses.replace` makes a variant of a risk.

    Raises:
        ValueError: for sizes that do not fit the data, unequal lengths, empty or non-finite data.
    """

    module: nn.Module
    """any `torch.nn.Module`"""
    loss: PerExampleLoss
    """any callable `(output, target)` that gives one value an example"""
    data: Sequence[Tensor] | Examples
    """tensors `(input, ..., target)`, or an `Examples`"""
    _: KW_ONLY
    block: int | None = None
    """examples a block; None: all in one"""
    norm_block: int | None = None
    """examples that batch norm normalises together; divides the block; None: the block"""
    chunk: int = 1
    """blocks computed at once: speed and memory only. Above 1 the module must run under `torch.func.vmap`"""
    autocast: torch.dtype | None = None
    """dtype in which `torch.autocast` runs convolutions and matrix products (`torch.bfloat16`); parameters, gradients
    and sums keep theirs. None: no autocast"""
    compiler: Compiler | None = None
    """makes machine code for whole chunks: speed only, but for last bits. None: computed without"""
    statistics: Statistics = "average"
    """how `accept` sets batch norm's running statistics, see `BlockNorm`"""
    visits: int = 1
    """times that a sweep's running statistics count each norm block: above 1 where probes leave theirs as well"""
    block_clip: float | None = None
    """L2 norm to which each block's gradient is clipped; None: none. With it the objective is not exact"""
    order: Tensor | None = None
    """example numbers in the order in which blocks are cut, int64 `[N]`; None: all, as they stand"""
    whole: int | None = None
    """examples that make a pass, where the sweep covers a part (or a multiple) of the data set; None: the sweep's"""
    first: int = 0
    """number of the first block, where the sweep covers a part of the data set"""
    before: int = 0
    """examples of other parts, whose share of batch norm's average `accept` keeps as the buffers hold it"""
    seed: int = 0
    """keys the random numbers that the module draws (dropout), with `step` and the block's number"""
    step: int = 0
    """see `seed`"""
    workers: Workers = field(default_factory=Alone)
    """the processes that share the sweeps"""

    def __post_init__(self) -> None:
        self.space = parameter_space(self.module)
        own = isinstance(self.data, Examples) and not hasattr(self.data, "__array__")  # an array has a take, too
        self.examples: Examples = self.data if own else TensorExamples(self.data)  # type: ignore[assignment,arg-type]
        count = len(self.examples) if self.order is None else len(self.order)
        if not count:
            raise ValueError("the order is empty: a sweep needs at least one example")
        self.blocks = Blocks(count, count if self.block is None else self.block, self.order)
        check_size("block", self.blocks.size, max(count, self.whole or 0))
        norm_block = self.blocks.size if self.norm_block is None else self.norm_block
        check_norm_block(norm_block, self.blocks.size)
        check_size("chunk", self.chunk, 2**31, "blocks")
        if self.block_clip is not None and not self.block_clip > 0:
            raise ValueError(f"block_clip must be a positive norm, not {self.block_clip}")
        self.norm = BlockNorm(self.module, norm_block, self.statistics)
        whole_blocks = max(1, self.blocks.count // self.blocks.size)
        self.block_loss = BlockLoss(
            self.module, self.loss, self.space, self.norm, self.seed, self.step,
            self.autocast, self.compiler, (1 if self.autocast else min(self.chunk, whole_blocks), self.blocks.size),
        )  # fmt: skip

    @property
    def exact(self) -> bool:
        """True unless block gradients are clipped."""
        return self.block_clip is None

    def evaluate(self) -> Evaluation:
        """Loss and gradient from one sweep; one pass."""
        return self.sweep()

    def measure(self) -> Measurement:
        """Loss and hits by forwards alone, a third of a pass: the bits of `evaluate`, where nothing is compiled."""
        theta = self.space.theta.detach()

        def report(batch: Batch, partial: Partial) -> Tensor:
            first = batch.first - self.first
            found = torch.stack(self.block_loss.measure(theta, batch)).cpu()
            partial.scalars[:2, first : first + len(batch)] = found
            return theta.new_empty(len(batch), 0)

        losses, hits, _, _ = self._sum(0, 0, self.chunk, report).scalars
        count = self.blocks.count
        passes = FORWARD * count / (self.whole or count)
        return Measurement(exact_total(losses) / count, None, _whole(exact_total(hits)), count, passes)

    def sweep(self, correction: Correction | None = None, passes: float = 1.0) -> Evaluation:
        """One sweep over the blocks, in their order.

        Args:
            correction: gives each block's gradient corrected, and the block's penalty.
            passes: what a sweep over the whole data set costs with that correction.

        Returns:
            The sums over all blocks.
        """
        theta, examples, norm_blocks = self.space.theta.detach(), self.blocks.count, self._norm_blocks()
        counts = torch.tensor(self.blocks.sizes(), dtype=torch.float64)

        def report(batch: Batch, partial: Partial) -> Tensor:
            first = batch.first - self.first
            found = self.block_loss.differentiate(theta, batch, record=True)
            corrected, penalty, visits = found.gradient, torch.zeros_like(found.loss), [found.statistics]
            if correction is not None:
                corrected, penalty, further = correction(theta, batch, found)
                visits += further
            if self.block_clip is not None:
                corrected = clipped(corrected, self.block_clip)
            groups = self.norm.groups(batch.target.shape[1]) * self.visits * len(batch)
            before = first * len(self.norm.groups(self.blocks.size)) * self.visits
            weights = self.norm.weights(before, groups, norm_blocks)
            partial.statistics.add(torch.cat(visits, 1).flatten(0, 1), weights)
            scalars = torch.stack((found.loss, found.hits, penalty * batch.counts, found.square)).cpu()
            partial.scalars[:, first : first + len(batch)] = scalars
            return corrected

        partial = self._sum(len(self.space), self.norm.length, self.chunk, report)
        losses, hits, penalties, square = partial.scalars
        return Evaluation(
            loss=exact_total(losses) / examples,
            gradient=partial.vector.value().div_(examples).to(theta.dtype),
            penalty=exact_total(penalties) / examples,
            hits=_whole(exact_total(hits)),
            block_square_norms=square,
            block_counts=counts,
            count=examples,
            passes=passes * examples / (self.whole or examples),
            statistics=partial.statistics.value(),
        )

    def hvp(self, V: Tensor) -> Tensor:
        """`H V` by double backward, block by block: the Hessian of the mean loss, exact up to rounding.

        Args:
            V: vectors `[K, P]`.

        Returns:
            `[K, P]`.

        Raises:
            ValueError: if V has another shape.
        """
        return self.mean_product(V, self.block_loss.value)

    def hvp_passes(self, vectors: int) -> float:
        """One pass for the gradient and two for each product, for the share of the data set that the sweep covers."""
        return (1.0 + 2.0 * vectors) * self.blocks.count / (self.whole or self.blocks.count)

    def mean_product(self, V: Tensor, value: Callable[[Tensor, Batch, int], Tensor]) -> Tensor:
        """The Hessian products of `(1 / N) sum_b n_b value(theta, batch, 0)`, by double backward.

        Args:
            V: vectors `[K, P]`.
            value: a scalar for the one block of a batch, differentiable twice in `theta [P]`.

        Returns:
            `[K, P]`.
        """
        check_vectors(V, self.space)
        theta = self.space.theta.detach().requires_grad_()

        def report(batch: Batch, partial: Partial) -> Tensor:
            (gradient,) = torch.autograd.grad(value(theta, batch, 0), theta, create_graph=True)
            return torch.stack([hessian_product(gradient, theta, v.to(theta)) for v in V]).reshape(1, -1)

        partial = self._sum(V.numel(), 0, 1, report)
        return (partial.vector.value() / self.blocks.count).to(theta.dtype).reshape(V.shape)

    def block_gradient(self, number: int) -> Tensor:
        """The gradient of block `number`'s mean loss, `[P]`, before penalty and clip; each process computes it."""
        with self.block_loss.asked():
            batch = self._batch(list(self.blocks.chunks(1))[number])
            return self.block_loss.differentiate(self.space.theta.detach(), batch).gradient[0]

    def over_blocks(self, ask: Callable[[Tensor], tuple[Tensor, Tensor]], rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """What is asked of each block's gradient, from one sweep; one pass.

        Args:
            ask: gradient `[P]` of a block's mean loss, before penalty and clip -> (numbers `[rows]`, vector `[P]`).
            rows: how many numbers it gives.

        Returns:
            The mean of the gradients by count, the gradient of the mean loss, `[P]`; the sum of the vectors, `[P]`; and
            the table of the numbers, `[rows, blocks]`, on the CPU. All float64, with the same bits for any workers.
        """
        theta, length = self.space.theta.detach(), len(self.space)

        def report(batch: Batch, partial: Partial) -> Tensor:
            gradients = self.block_loss.differentiate(theta, batch).gradient
            for number, gradient in enumerate(gradients, batch.first - self.first):
                numbers, vector = ask(gradient)
                partial.scalars[:, number] = numbers.cpu()
                partial.statistics.add(vector[None], torch.ones(1))
            return gradients

        partial = self._sum(length, length, self.chunk, report, rows)
        return partial.vector.value().div_(self.blocks.count), partial.statistics.value(), partial.scalars

    def accept(self, evaluation: Evaluation) -> None:
        """Writes the sweep's batch-norm statistics into the module's buffers."""
        self.norm.write(evaluation.statistics, self._norm_blocks(), self.before / (self.before + evaluation.count))

    def _norm_blocks(self) -> int:
        """Norm blocks in a sweep, as often as they are counted."""
        return self.visits * sum(len(self.norm.groups(n)) for n in self.blocks.sizes())

    def _sum(
        self,
        length: int,
        statistics: int,
        chunk: int,
        report: Callable[[Batch, Partial], Tensor],
        rows: int = len(SCALARS),
    ) -> Partial:
        """The workers' sum over all chunks of the vectors `[K, length]` that a batch reports, by count."""
        chunks = list(self.blocks.chunks(chunk))
        partial = Partial.empty(length, statistics, len(self.blocks), len(chunks), self.space.device, rows)
        with self.block_loss.asked():
            for number in self.workers.share(partial):
                batch = self._batch(chunks[number])
                partial.vector.add(report(batch, partial), batch.counts)
                partial.done[number] = 1
        self.workers.combine(partial)
        return partial

    def _batch(self, chunk: Chunk) -> Batch:
        """A chunk's examples, where the parameters are."""
        *inputs, target = (x.to(self.space.device) for x in self.examples.take(chunk.index))
        return Batch(self.first + chunk.first, tuple(inputs), target)


def _whole(hits: float) -> int | None:
    return None if math.isnan(hits) else int(hits)
