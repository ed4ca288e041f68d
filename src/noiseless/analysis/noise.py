"""Gradient noise: the distance of block gradients from their mean, and the noise to expect from a block of any size.

It is measured in two sweeps over the blocks of an empirical risk. McCandlish et al., arXiv 1812.06162, appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.analysis.moments import Moments, moments
from noiseless.examples.blocks import Batch
from noiseless.objective import EmpiricalRisk
from noiseless.objective.base import square_norms
from noiseless.objective.exactsum import exact_total
from noiseless.objective.partial import Report


@dataclass(frozen=True)
class GradientNoise:
    """Norms, spread and alignment of the block gradients g_b, before penalty and clip."""

    total: Moments
    """of all parameters together"""
    layers: dict[str, Moments]
    """moments of each parameter tensor, by its name"""
    block: int
    """B, examples in a block"""
    counts: Tensor
    """n_b, examples in each block: float64 `[blocks]`"""
    gradient: Tensor
    """the full gradient `(1 / N) sum_b n_b g_b`, float64 `[P]`"""
    block_norms: Tensor
    """`||g_b||`, float64 `[blocks]`"""
    alignment: float | None
    """mean cosine of the gradients of two different blocks, over all pairs of nonzero ones; None if there is no pair"""
    gradient_cosines: Tensor
    """cosine of each block's gradient with the full gradient, float64 `[blocks]`; NaN where either is zero"""
    cosines: Tensor
    """cosine of each block's gradient with each reference, float64 `[references, blocks]`; NaN where either is zero"""
    full_cosines: Tensor
    """cosine of the full gradient with each reference, float64 `[references]`; NaN where either is zero"""
    passes: float
    """cost, in gradient evaluations over the full data set"""


def gradient_noise(
    risk: EmpiricalRisk, references: Sequence[Tensor] = (), *, batch_norm: BatchNorm | None = None
) -> GradientNoise:
    """Measures norms, spread and alignment of a risk's block gradients.

    With n blocks of n_b examples, N in all, g_b the gradient of block b's mean loss and `g = (1 / N) sum_b n_b g_b`:

        S = sum_b n_b ||g_b - g||^2 / (n - 1),    |G|^2 = ||g||^2 - S / N.

    For independent examples both are unbiased for any counts, a short last block included: `E n_b ||g_b - g||^2` is
    `S (1 - n_b / N)`. With equal blocks they are the two-batch estimators of arXiv 1812.06162 (appendix A.1), with
    B_small = B, averaged over the blocks, and B_big = N; where blocks are drawn from the N examples, S is unbiased for
    these N examples, too. Blocks must be random draws: if the data are sorted (by class, say), S measures the distance
    between the classes. Where batch norm normalises norm blocks, the independent unit is the norm block rather than the
    example: S / B then holds for B that are multiples of it, and each size of norm block defines another function.

    A first sweep computes g. In the second, `d_b = g_b - s` with s the gradient g rounded to the parameters' dtype, and
    the sum of squares is `sum_b n_b ||d_b||^2 - N ||g - s||^2`. It equals the sum above, without the cancellation of
    `sum_b n_b ||g_b||^2 - N ||g||^2`, and, unlike in Welford's updates, no term depends on the order of the blocks. So
    all numbers have the same bits for any number of workers and any order of the blocks. The errors of S and |G|^2 come
    from `||d_b||^2` and `d_b . s` (see `Moments`).

    The alignment is `(||sum_b u_b||^2 - n) / (n (n - 1))` with `u_b = g_b / ||g_b||`: a short block has the same weight
    as the others.

    Args:
        risk: evaluated at its module's present parameters; `dataclasses.replace` gives it another block size.
        references: vectors `[P]`, such as the full gradient or a momentum, with which cosines are taken.
        batch_norm: the module's mode, see `modes.BatchNorm`; None: its present mode.

    Returns:
        The noise. Its cost is two passes.

    Raises:
        ValueError: if there is one block only, a reference has another length or is not finite, or a gradient is not
            finite.
    """
    check_blocks(risk)
    space = risk.space
    for number, vector in enumerate(references):
        if vector.shape != (len(space),):
            raise ValueError(f"reference {number} must have shape [{len(space)}], not {list(vector.shape)}")
        if not vector.isfinite().all():
            raise ValueError(f"reference {number} holds NaN or infinity: it has no direction")
    with module_mode(space.module, batch_norm):
        evaluation = risk.evaluate()
    _check_finite(evaluation.block_square_norms)
    count, counts = risk.blocks.count, torch.tensor(risk.blocks.sizes(), dtype=torch.float64)
    if not torch.equal(evaluation.block_weights, counts):
        raise ValueError(
            "the loss gives its examples weights, but gradient noise is defined for a mean over examples of equal"
            " weight: use a loss without class weights, ignored targets or a mask"
        )
    shift = evaluation.gradient.double()
    directions = [shift, *(vector.detach().to(space.device, torch.float64) for vector in references)]
    theta = space.theta.detach()

    def report(batch: Batch) -> Report:
        gradients = risk.block_loss.differentiate(theta, batch).gradient
        squares, spreads, along, dots, units = [], [], [], [], []
        for gradient in gradients:
            g = gradient.double()
            squares.append(square_norms(g))
            d = g - shift
            spreads.append(torch.stack([part.square().sum() for part in d.split(space.sizes)]))
            along.append(torch.stack([part.sum() for part in (d * shift).split(space.sizes)]))
            dots.append(torch.stack([(vector * g).sum() for vector in directions]))
            units.append(g / squares[-1].sqrt() if squares[-1] > 0 else torch.zeros_like(g))
        return Report(
            {"gradient": (gradients, batch.counts), "units": (torch.stack(units), torch.ones(len(units)))},
            {
                "square": torch.stack(squares),
                "spread": torch.stack(spreads, 1),
                "along": torch.stack(along, 1),
                "dot": torch.stack(dots, 1),
            },
        )

    rows = {"square": 1, "spread": len(space.sizes), "along": len(space.sizes), "dot": len(directions)}
    with module_mode(space.module, batch_norm):
        summed = risk.sweep(report, {"gradient": len(space), "units": len(space)}, rows)
    gradient, units = summed.vectors["gradient"].div_(risk.blocks.count), summed.vectors["units"]
    squares, spreads, along, dots = (summed.scalars[name] for name in rows)
    offsets = [float(square_norms(part)) for part in (gradient - shift).split(space.sizes)]
    sums = [
        max(0.0, exact_total(counts * spread) - count * offset) for spread, offset in zip(spreads, offsets, strict=True)
    ]
    layers = {
        name: moments(float(square_norms(part.flatten())), total, spread, product, counts)
        for (name, part), total, spread, product in zip(
            space.split(gradient).items(), sums, spreads, along, strict=True
        )
    }
    norms, full = squares[0].sqrt(), square_norms(gradient).sqrt()
    moving = int((norms > 0).sum())
    lengths = torch.tensor([float(square_norms(vector).sqrt()) for vector in directions], dtype=torch.float64)
    products = torch.tensor([float((vector * gradient).sum()) for vector in directions], dtype=torch.float64)
    cosines, full_cosines = dots / (lengths[:, None] * norms), products / (lengths * full.cpu())
    return GradientNoise(
        total=moments(float(full) ** 2, math.fsum(sums), spreads.sum(0), along.sum(0), counts),
        layers=layers,
        block=risk.blocks.size,
        counts=counts,
        gradient=gradient,
        block_norms=norms,
        alignment=(float(square_norms(units)) - moving) / (moving * (moving - 1)) if moving > 1 else None,
        gradient_cosines=cosines[0],
        cosines=cosines[1:],
        full_cosines=full_cosines[1:],
        passes=noise_passes(risk),
    )


def noise_passes(risk: EmpiricalRisk) -> float:
    """Cost of `gradient_noise` in passes: two sweeps."""
    return 2 * risk.passes


def gradient_noise_scale(risk: EmpiricalRisk, *, batch_norm: BatchNorm | None = None) -> float | None:
    """The simple noise scale `tr(Sigma) / |G|^2` of a risk, in examples (arXiv 1812.06162); see `gradient_noise`.

    Args:
        risk: with three blocks or more.
        batch_norm: the module's mode, see `modes.BatchNorm`; None: its present mode.

    Returns:
        The scale; None if the gradient is not distinguished from zero, see `Moments.reason`.
    """
    return gradient_noise(risk, batch_norm=batch_norm).total.noise_scale


def usual_sizes(block: int, examples: int) -> list[int]:
    """Block sizes for which signal to noise is predicted: powers of 8, a block's size, and all examples."""
    return sorted({8**k for k in range(20) if 8**k < examples} | {block, examples})


def check_blocks(risk: EmpiricalRisk) -> None:
    """Raises if a risk has one block only, as noise is a variance between blocks.

    Raises:
        ValueError: with the largest block size that would do.
    """
    if len(risk.blocks) < 2:
        raise ValueError(
            f"the {risk.blocks.count} examples make one block of {risk.blocks.size}, and noise is a difference between"
            f" blocks: choose a block of at most {risk.blocks.count // 2}"
        )


def _check_finite(squares: Tensor) -> None:
    """Raises if a block gradient is not finite.

    Args:
        squares: squared norms of the block gradients, `[blocks]`.

    Raises:
        ValueError: with the number of such blocks and the first of them.
    """
    wrong = (~squares.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"the gradients of {len(wrong)} of {len(squares)} blocks are not finite, the first of block {wrong[0]}:"
            " their noise cannot be measured; choose an earlier state"
        )
