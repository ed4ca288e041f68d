"""Work, memory and messages of the busiest worker of a run, in examples and bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from noiseless.cost.sizes import Sizes
from noiseless.examples.blocks import check_norm_block, check_size
from noiseless.objective.penalty import PROBES
from noiseless.objective.reach import rows
from noiseless.objective.scores import SCALARS
from noiseless.recipes.recipe import Recipe
from noiseless.run.regimes import part_sizes

BIN = 8
"""bytes of a number in a bin of the exact sum (float64)"""
BINS = 3
"""number of bins of the exact sum"""


@dataclass(frozen=True)
class Share:
    """Work of the busiest worker in a step, for which the others wait."""

    blocks: int
    """blocks of an update, over all workers"""
    chunks: int
    """chunks of an update, over all workers; a chunk is computed by one worker"""
    updates: int
    """updates of a step"""
    own: int
    """blocks of a step that the busiest worker computes in a sweep"""
    examples: int
    """examples in those blocks"""
    whole: int
    """examples of a step, over all workers"""


@dataclass(frozen=True)
class Memory:
    """Bytes of memory of one worker, by part."""

    parameters: int
    gradient: int
    parts: int
    """newest gradient of each part, where a step has several parts"""
    optimizer: int
    average: int
    """exponential average of the parameters, where the run has one"""
    bins: int
    """bins of the exact sum"""
    block_gradients: int
    activations: int
    """activations that the forward of a chunk saves"""
    data: int
    """images and labels, where they are small enough to be kept on the device"""

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(asdict(self).values())


def share(recipe: Recipe, examples: int, chunk: int, workers: int) -> Share:
    """Computes the busiest worker's share of a step.

    An update's B blocks are divided into chunks of k blocks, and the busiest worker computes `ceil(ceil(B / k) / W)`
    of these chunks. In the stochastic regime each block is an update, which one worker computes.

    Args:
        recipe: resolved or not, without a switch of regimes.
        examples: number of training examples.
        chunk: k, number of blocks in a chunk; a last last block is a separate chunk.
        workers: W, number of workers.

    Returns:
        The share.
    """
    objective = recipe.objective
    stochastic = objective.regime == "stochastic"
    total = examples * objective.max_up * (1 if stochastic else max(1, recipe.data.copies))
    check_size("block", objective.block, total)
    check_norm_block(objective.norm_block or objective.block, objective.block)
    parts = objective.parts
    largest = part_sizes(total // objective.max_up, parts)[0] * objective.max_up
    full, last = divmod(largest, objective.block)
    last = 0 if objective.drop_last else last
    total = min(parts * (full * objective.block + last), total)
    blocks = full + (last > 0)
    if stochastic:
        return Share(1, 1, blocks, blocks, total, total)
    chunks = -(-full // chunk) + (last > 0)
    busiest = min(-(-chunks // workers) * chunk, blocks)
    return Share(blocks, chunks, parts, parts * busiest, min(parts * busiest * objective.block, total), total)


def message(sizes: Sizes, share: Share) -> int:
    """Bytes that the all-reduce of a sweep adds up: `24 (P + S)` for bins, `40 + 8 R` for a block, 1 for a chunk.

    Args:
        sizes: of the run, with P parameters and S numbers of batch norm's statistics; R numbers hold a bit for each
            parameter tensor.
        share: of a step; its blocks and chunks are counted.

    Returns:
        The bytes.
    """
    bins = BINS * BIN * (sizes.work.parameters + sizes.statistics)
    numbers = sum(SCALARS.values()) + rows(sizes.work.tensors)
    return bins + numbers * BIN * share.blocks + share.chunks


def memory(recipe: Recipe, sizes: Sizes, share: Share, chunk: int) -> Memory:
    """Computes the memory of one worker.

    With P parameters of e bytes each and chunks of k blocks:

    - theta and the gradient: `e P` each, and another `e P` for the newest gradient of each part, if there are several;
    - optimizer state: `s e P` for an optimizer that keeps s numbers for each parameter;
    - bins of the exact sum: `24 P`;
    - block gradients: `k e P` for each vector that a block needs at once (with forward differences 3: its gradient, the
      probed point and the gradient there);
    - the saved activations of a chunk.

    Args:
        recipe: resolved or not.
        sizes: of the run.
        share: of a step.
        chunk: k, number of blocks in a chunk.

    Returns:
        Bytes by part. Buffers of single operations are not counted.
    """
    theta = sizes.work.parameters * sizes.element
    blocks, update_examples = min(chunk, share.own // share.updates), -(-share.whole // share.updates)
    vectors = 1
    if recipe.objective.penalised:
        # exact: gradient and product, 2; forward differences: gradient, probed point and gradient there, 3; central: 4
        vectors = 2 + PROBES[recipe.objective.penalty_method] + (recipe.objective.full_penalty > 0)
    return Memory(
        parameters=theta,
        gradient=theta,
        parts=recipe.objective.parts * theta if recipe.objective.parts > 1 else 0,
        optimizer=int(sizes.state * theta),
        average=theta if recipe.evaluation.ema else 0,
        bins=BINS * BIN * sizes.work.parameters,
        block_gradients=blocks * vectors * theta,
        activations=int(blocks * min(recipe.objective.block, update_examples) * sizes.saved),
        data=sizes.data.bytes if sizes.data.resident else 0,
    )
