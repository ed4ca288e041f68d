"""What the busiest worker of a run has to do, to hold and to send, in examples and bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from noiseless.cost.sizes import Sizes
from noiseless.objective.blocks import check_norm_block, check_size
from noiseless.objective.penalty import PROBES
from noiseless.objective.risk import SCALARS
from noiseless.recipes.recipe import Recipe
from noiseless.run.regimes import part_sizes

BIN = 8
"""bytes of a number in one of the exact sum's bins, float64"""
BINS = 3
"""bins of the exact sum"""


@dataclass(frozen=True)
class Share:
    """What the busiest worker has to do in a step: the others wait for it."""

    blocks: int
    """of an update, over all workers"""
    chunks: int
    """in which they are handed out, whole"""
    updates: int
    """of a step"""
    own: int
    """blocks of a step that are the busiest worker's, in one sweep over them"""
    examples: int
    """in those"""
    whole: int
    """examples of a step, over all workers"""


@dataclass(frozen=True)
class Memory:
    """Bytes of a worker, by part."""

    parameters: int
    gradient: int
    parts: int
    """newest gradients of the parts, where a step has several"""
    optimizer: int
    average: int
    """of the states, where one is kept"""
    bins: int
    """of the exact sum"""
    block_gradients: int
    activations: int
    """saved by the forward of a chunk"""
    data: int
    """images and labels, where they are small enough to live on the device"""

    @property
    def total(self) -> int:
        """All parts."""
        return sum(asdict(self).values())


def share(recipe: Recipe, examples: int, chunk: int, workers: int) -> Share:
    """The busiest worker's part of a step: of an update's B blocks in chunks of k, `ceil(ceil(B / k) / W)` chunks.

    Args:
        recipe: resolved or not, without a switch of regimes.
        examples: in the training set.
        chunk: k, blocks that are handed out at once; a short last block is a chunk of its own.
        workers: W.

    Returns:
        The share. In the stochastic regime each block is an update, which one worker computes.
    """
    objective = recipe.objective
    stochastic = objective.regime == "stochastic"
    total = examples * objective.max_up * (1 if stochastic else max(1, recipe.data.copies))
    check_size("block", objective.block, total)
    check_norm_block(objective.norm_block or objective.block, objective.block)
    parts = objective.parts
    largest = part_sizes(total // objective.max_up, parts)[0] * objective.max_up
    whole, short = divmod(largest, objective.block)
    short = 0 if objective.drop_last else short
    total = min(parts * (whole * objective.block + short), total)
    blocks = whole + (short > 0)
    if stochastic:
        return Share(1, 1, blocks, blocks, total, total)
    chunks = -(-whole // chunk) + (short > 0)
    own = min(-(-chunks // workers) * chunk, blocks)
    return Share(blocks, chunks, parts, parts * own, min(parts * own * objective.block, total), total)


def message(sizes: Sizes, share: Share) -> int:
    """Bytes that a sweep's all-reduce adds up: `24 (P + S)` of bins, 32 a block, 1 a chunk.

    Args:
        sizes: of the run; P parameters, S numbers of batch norm's statistics.
        share: has blocks and chunks.

    Returns:
        The bytes.
    """
    bins = BINS * BIN * (sizes.work.parameters + sizes.statistics)
    return bins + sum(SCALARS.values()) * BIN * share.blocks + share.chunks


def memory(recipe: Recipe, sizes: Sizes, share: Share, chunk: int) -> Memory:
    """What a worker holds.

    With P parameters of e bytes and chunks of k blocks: e P of theta, as much of the gradient, and of each of several
    parts' newest; `s e P` of an optimizer that keeps s numbers for each; 24 P of bins; `k e P` for each vector that a
    block has at once (with forward differences 3: its gradient, the probed point and the gradient there); the saved
    activations of a chunk.

    Args:
        recipe: resolved or not.
        sizes: of the run.
        share: of a step.
        chunk: k.

    Returns:
        Bytes by part. Buffers of single operations are not counted.
    """
    theta = sizes.work.parameters * sizes.element
    together, largest = min(chunk, share.own // share.updates), -(-share.whole // share.updates)
    held = 1
    if recipe.objective.penalty or recipe.objective.full_penalty:
        # a product by double backward is a second one; a probe is a point for each block, and a gradient there
        held = 2 + PROBES[recipe.objective.penalty_method] + (recipe.objective.full_penalty > 0)
    return Memory(
        parameters=theta,
        gradient=theta,
        parts=recipe.objective.parts * theta if recipe.objective.parts > 1 else 0,
        optimizer=int(sizes.state * theta),
        average=theta if recipe.evaluation.ema else 0,
        bins=BINS * BIN * sizes.work.parameters,
        block_gradients=together * held * theta,
        activations=int(together * min(recipe.objective.block, largest) * sizes.saved),
        data=sizes.data.bytes if sizes.data.resident else 0,
    )
