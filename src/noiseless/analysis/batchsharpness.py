"""Batch sharpness: the curvature of each block's loss along the block's own gradient (arXiv 2412.20553)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.examples.blocks import Batch
from noiseless.objective import EmpiricalRisk
from noiseless.objective.base import square_norms
from noiseless.objective.exactsum import exact_total
from noiseless.objective.partial import Report
from noiseless.objective.products import gradient_product


@dataclass(frozen=True)
class BatchSharpness:
    """The curvature of the blocks' losses along their gradients."""

    mean: float | None
    """`mean_b q_b`, over blocks whose gradient is not 0; None if all are"""
    ratio: float | None
    """`mean_b (g_b . H_b g_b) / mean_b ||g_b||^2`; None if all gradients are 0"""
    quotients: Tensor
    """`q_b = g_b . H_b g_b / ||g_b||^2`, float64 `[blocks]`; NaN where g_b is 0"""
    passes: float
    """cost, in passes"""


def batch_sharpness(risk: EmpiricalRisk, batch_norm: BatchNorm | None = None) -> BatchSharpness:
    """The batch sharpness of a risk's blocks, exact over all of them.

    With g_b and H_b the gradient and Hessian of block b's mean loss, it is the mean over the blocks of
    `g_b . H_b g_b / ||g_b||^2`. SGD without momentum on these blocks is reported to keep it near 2 / lr, with the
    largest eigenvalue of the mean Hessian below (arXiv 2412.20553). With one block it is the curvature along the full
    gradient. The cost is three passes, see `Objective.hvp_passes`.

    Args:
        risk: at its module's present parameters; `dataclasses.replace` gives it another block size.
        batch_norm: the module's mode, see `modes.BatchNorm`; None: its present mode.

    Returns:
        Means and quotients.
    """

    def report(batch: Batch) -> Report:
        gradient, image, _ = gradient_product(risk.block_loss, batch)
        curvature = (gradient.double() @ image.double())[None]
        return Report({}, {"curvature": curvature, "square": square_norms(gradient)[None]})

    with module_mode(risk.module, batch_norm):
        summed = risk.sweep(report, {}, {"curvature": 1, "square": 1}, chunk=1)
    curvatures, squares = summed.scalars["curvature"][0], summed.scalars["square"][0]
    quotients = curvatures / squares
    known = quotients[squares > 0]
    mean = exact_total(known) / len(known) if len(known) else None
    total = exact_total(squares)
    ratio = exact_total(curvatures) / total if total else None
    return BatchSharpness(mean, ratio, quotients, risk.hvp_passes(1))
