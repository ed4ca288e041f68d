"""The empirical risk: the mean loss over all examples, from one sweep over the blocks. Steps 2 to 5 of a step."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from noiseless.documented import documented
from noiseless.examples.blocks import Batch, Chunk, check_norm_block
from noiseless.examples.selection import Selection
from noiseless.losses.scoring import Scoring
from noiseless.losses.terms import PerExample
from noiseless.objective import reach
from noiseless.objective.base import FORWARD, Evaluation, Measurement, Objective, check_vectors
from noiseless.objective.batchnorm import BlockNorm, Statistics
from noiseless.objective.contribution import ByBlock, Contribution
from noiseless.objective.exactsum import exact_total
from noiseless.objective.execution import Execution
from noiseless.objective.gradients import BlockLoss
from noiseless.objective.layers import check_trainable
from noiseless.objective.partial import Partial, Report, Sums
from noiseless.objective.products import block_products
from noiseless.objective.scores import SCALARS, Scores, total_weight
from noiseless.objective.selfcheck import check_once
from noiseless.objective.space import parameter_space


class Blockwise(Objective):
    """An objective whose value and direction are means over the blocks, weighted by count."""

    visits: int = 1
    """how often an evaluation records the statistics of each norm block"""

    @abstractmethod
    def by_block(self) -> ByBlock:
        """A function that computes the contribution of blocks; sweeps that it needs are done before this returns."""

    def evaluate(self) -> Evaluation:
        """Value and direction from one sweep, after the sweeps of `by_block`."""
        return risk_of(self).mean(self.by_block(), self.passes, self.visits)


@documented
@dataclass(eq=False, repr=False)
class EmpiricalRisk(Blockwise):
    """The mean loss of a module over a full data set.

    `L(theta) = (1 / N) sum_i loss(model(x_i), y_i)`, in which batch-norm layers in training mode see norm blocks. With
    g_b the gradient of block b's mean loss and n_b its count, the gradient is `(1 / N) sum_b n_b g_b`. Where the loss
    has weights, `L = sum_i w_i v_i / sum_i w_i`, and n_b is the sum of the block's weights: so it is for torch's losses
    with class weights or `ignore_index`. The module runs in its current mode, `train()` or `eval()`. `at` gives the
    same function of other examples, `dataclasses.replace` another function.

    Raises:
        ValueError: for sizes and lengths that do not fit, empty or non-finite data, parameters that cannot be trained.
    """

    module: nn.Module
    """any `torch.nn.Module`"""
    loss: PerExample
    """any loss of torch; or any callable `(what the module returns, target)` that returns one value for each example,
    or a tuple of values and weights"""
    data: Any
    """tensors `(input, ..., target)`, a data set (see `DatasetExamples`), an `Examples`, or a `Selection` of it"""
    _: KW_ONLY
    block: int | None = None
    """examples in a block; None: one block of all examples"""
    norm_block: int | None = None
    """examples that batch norm normalises together; must divide the block size; None: the block size"""
    autocast: torch.dtype | None = None
    """dtype in which `torch.autocast` runs convolutions and matrix products; the rest keeps its own. None: none"""
    portable: bool = False
    """whether a sweep has the same bits on every CPU, for any threads and chunk; see `noiseless.portable`"""
    statistics: Statistics = "average"
    """how `accept` sets batch norm's running statistics, see `BlockNorm`"""
    metrics: Mapping[str, PerExample] = field(default_factory=dict)
    """further functions like the loss, by name, whose means an evaluation reports"""
    execution: Execution = field(default_factory=Execution)
    """how sweeps are computed: workers, chunk, compiler"""

    def __post_init__(self) -> None:
        check_trainable(self.module, self.loss)
        self.space = parameter_space(self.module)
        self.selection = Selection.of(self.data)
        self.blocks = self.selection.blocks(self.block)
        norm_block = self.blocks.size if self.norm_block is None else self.norm_block
        check_norm_block(norm_block, self.blocks.size)
        self.norm = BlockNorm(self.module, norm_block, self.statistics)
        arguments = self.module, Scoring(self.loss, self.metrics), self.space, self.norm
        self.block_loss = BlockLoss(*arguments, self.autocast, self.execution.compiler, self.portable)

    def _settings(self) -> list[str]:
        blocks = f"{self.blocks.count} examples in {len(self.blocks)} blocks of {self.blocks.size}"
        return [type(self.module).__name__, blocks, f"{len(self.space):,} parameters"]

    def at(self, selection: Selection) -> EmpiricalRisk:
        """The mean loss over other examples, as a risk that shares parameter space and batch norm with this one.

        Args:
            selection: the examples.

        Returns:
            The risk.

        Raises:
            ValueError: if the block is larger than the selection; for a part of a pass, than the data set.
        """
        risk = copy.copy(self)
        risk.data, risk.selection, risk.blocks = selection, selection, selection.blocks(self.block)
        return risk

    def in_step(self, number: int, lr: float | None = None) -> EmpiricalRisk:
        """The risk over the selection as a step sees it."""
        return self.at(self.selection.in_step(number, lr))

    @property
    def wrapped(self) -> None:
        """None: a risk wraps no other objective."""

    def over(self, risk: Objective) -> Objective:
        """`risk` itself, as nothing wraps this one."""
        return risk

    @property
    def exact(self) -> bool:
        """True."""
        return True

    @property
    def passes(self) -> float:
        """One pass times the share of the data set that the selection covers."""
        return self.selection.share

    @property
    def sweeps(self) -> int:
        """One."""
        return 1

    def by_block(self) -> ByBlock:
        """The blocks' losses and gradients, unchanged."""

        def contribution(theta: Tensor, batch: Batch) -> Contribution:
            return Contribution.of(self.block_loss.differentiate(theta, batch, record=True))

        return contribution

    def mean(self, by_block: ByBlock, passes: float, visits: int = 1) -> Evaluation:
        """Evaluates an objective that is a mean over this risk's blocks, in one sweep.

        Args:
            by_block: computes the contribution of blocks.
            passes: cost of the evaluation, in gradient evaluations over the whole data set.
            visits: how often a contribution holds the statistics of each norm block.

        Returns:
            Means over all blocks, weighted by count.
        """
        theta, norm, norm_blocks = self.space.theta.detach(), self.norm, visits * self.norm.count(self.blocks)
        a_block = visits * norm.groups(self.blocks.size)

        def report(batch: Batch) -> Report:
            part = by_block(theta, batch)
            block, place = part.block, ((batch.first - self.selection.first) * a_block, len(batch), batch.size)
            vectors = {
                "gradient": (part.direction, block.weight),
                "statistics": (part.statistics.flatten(0, 1), norm.weights(*place, visits, norm_blocks)),
            }
            sums = {"penalty": part.penalty * block.weight, "square": block.square, "unreached": block.unreached.T}
            return Report(vectors, block.scalars() | sums)

        names, lengths = tuple(self.metrics), {"gradient": len(theta), "statistics": norm.length}
        unreached = {"unreached": reach.rows(len(self.space.sizes))}
        summed = self.sweep(report, lengths, {**SCALARS, **Scores.rows(names), **unreached})
        scores = Scores.of(summed, names)
        gradient = summed.vectors["gradient"].div_(scores.weight).to(theta.dtype)
        return Evaluation(
            loss=scores.loss,
            gradient=gradient,
            penalty=exact_total(summed.scalars["penalty"][0]) / scores.weight,
            hits=scores.hits,
            block_square_norms=summed.scalars["square"][0],
            block_weights=scores.weights,
            weight=scores.weight,
            count=self.blocks.count,
            passes=passes,
            statistics=summed.vectors["statistics"],
            norm_blocks=norm_blocks,
            metrics=scores.metrics,
            unused=reach.unused(summed.scalars["unreached"], self.space, gradient),
        )

    def measure(self) -> Measurement:
        """Loss and hits from forwards alone, a third of a pass; the bits of `evaluate` if nothing is compiled."""
        theta = self.space.theta.detach()

        def report(batch: Batch) -> Report:
            return Report({}, self.block_loss.measure(theta, batch).scalars())

        names = tuple(self.metrics)
        scores = Scores.of(self.sweep(report, {}, Scores.rows(names)), names)
        return Measurement(scores.loss, None, scores.hits, self.blocks.count, FORWARD * self.passes, scores.metrics)

    def hvp(self, V: Tensor) -> Tensor:
        """`H V` by double backward, block by block: the Hessian of the mean loss, exact up to rounding.

        Args:
            V: vectors `[K, P]`.

        Returns:
            `[K, P]`.

        Raises:
            ValueError: if V has another shape.
        """
        check_vectors(V, self.space)
        arguments = V.to(self.space.theta), self.execution.compile_products
        return self.mean_vectors(len(V), lambda batch: block_products(self.block_loss, batch, *arguments))

    def hvp_passes(self, vectors: int) -> float:
        """One pass for the gradient and two for each product, times the share of the data set that is covered."""
        return (1.0 + 2.0 * vectors) * self.passes

    def mean_vectors(self, rows: int, of_block: Callable[[Batch], tuple[Tensor, Tensor]]) -> Tensor:
        """The means `(1 / W) sum_b w_b x_b` of vectors over the blocks, one block at a time.

        Args:
            rows: K, number of vectors of each block.
            of_block: batch of one block -> its vectors x_b, `[K, P]`, and its weight w_b.

        Returns:
            `[K, P]`.
        """
        theta = self.space.theta

        def report(batch: Batch) -> Report:
            vectors, weight = of_block(batch)
            return Report({"vectors": (vectors.reshape(1, -1), weight[None])}, {"weight": weight[None]})

        summed = self.sweep(report, {"vectors": rows * len(theta)}, {"weight": 1}, chunk=1)
        weight = total_weight(summed.scalars["weight"][0])
        return (summed.vectors["vectors"] / weight).to(theta.dtype).reshape(rows, -1)

    def block_gradient(self, number: int, theta: Tensor) -> Tensor:
        """The gradient of block `number`'s mean loss at theta, `[P]`; each worker computes it by itself."""
        with self.block_loss.in_sweep():
            batch = self._batch(self.blocks.chunks(1)[number])
            return self.block_loss.differentiate(theta, batch).gradient[0]

    def accept(self, evaluation: Evaluation) -> None:
        """Writes the sweep's batch-norm statistics into the module's buffers."""
        before = self.selection.before
        self.norm.write(evaluation.statistics, evaluation.norm_blocks, before / (before + evaluation.count))

    def sweep(
        self,
        report: Callable[[Batch], Report],
        vectors: Mapping[str, int],
        scalars: Mapping[str, int],
        chunk: int | None = None,
    ) -> Sums:
        """Sums over all blocks, which the workers share; the bits depend neither on the workers nor on the order.

        Args:
            report: returns the terms that the blocks of a batch add.
            vectors: name -> length of the vectors that it reports.
            scalars: name -> how many numbers it reports for each block.
            chunk: blocks computed at once; None: the execution's chunk.

        Returns:
            The sums, and the scalars by block.
        """
        chunks, workers = self.blocks.chunks(chunk or self.execution.chunk), self.execution.workers
        partial = Partial.empty(vectors, scalars, len(self.blocks), len(chunks), self.space.device)
        views = self.execution.check and check_once(self.block_loss, lambda n: self._batch(self.blocks.head(n)))
        with self.block_loss.in_sweep():
            self.block_loss.check(len(chunks) < len(self.blocks), lambda: self._batch(self.blocks.chunks(1)[0]))
            self.selection.expect(chunks if workers.count == 1 else [])
            for number in workers.share(partial):
                partial.add(number, chunks[number].first, report(self._batch(chunks[number], views)))
        workers.combine(partial)
        return partial.sums()

    def _batch(self, chunk: Chunk, views: bool = False) -> Batch:
        """A chunk's examples, on the device of the parameters; `views`: they may be parts of the data set's memory."""
        regular = self.blocks.is_regular(chunk, None if self.autocast else self.execution.chunk)
        return self.selection.batch(chunk, self.space.device, regular, views)


def risk_of(objective: Objective) -> EmpiricalRisk:
    """The risk that an objective wraps, at any depth."""
    while objective.wrapped is not None:
        objective = objective.wrapped
    assert isinstance(objective, EmpiricalRisk)
    return objective
