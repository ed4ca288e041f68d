"""The gradient noise of any module: the noise scale, and signal to noise by block size and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from torch import nn

from noiseless.analysis import gradient_noise, usual_sizes
from noiseless.api.preparing import Options, prepared, with_options
from noiseless.api.results import Numbers, Result, gaps, optional
from noiseless.documented import documented
from noiseless.losses.terms import PerExample
from noiseless.report.figures import AnyFigure, Series
from noiseless.report.noise import by_block_figure

BLOCKS = 16
"""number of blocks, at least, unless their size is given"""


@documented
@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GradientNoiseScale(Result):
    """The noise of mini-batch gradients around the gradient of a module's mean loss."""

    value: float | None
    """`tr(Sigma) / |G|^2`, the simple noise scale, in examples; None where there is a `reason`"""
    interval: tuple[float, float] | None
    """of the noise scale, at the level 95 %; None where there is no noise scale"""
    reason: str | None
    """why there is no noise scale; None where there is one"""
    covariance_trace: float
    """`tr(Sigma)`, the trace of the covariance of single examples' gradients"""
    signal: float
    """estimate of `|G|^2`, the squared norm of the expected gradient"""
    signal_interval: tuple[float, float] | None
    """of the signal, at the level 95 %; None for two blocks"""
    gradient_norm: float
    """norm of the gradient over all examples"""
    alignment: float | None
    """mean cosine between the gradients of two different blocks"""
    sizes: Numbers
    """numbers of examples in a mini-batch, `[n]`"""
    signal_to_noise: Numbers
    """`|G|^2 / (tr(Sigma) / B)` for mini-batches of these sizes, `[n]`; NaN where there is no noise scale"""
    layers: Mapping[str, float | None]
    """noise scale of each parameter tensor, by its name"""

    def _brief(self) -> str:
        value = "None"
        if self.value is not None and self.interval is not None:
            value = f"{self.value:.4g} ({self.interval[0]:.3g} to {self.interval[1]:.3g}) examples"
        return f"{value}, gradient_norm={self.gradient_norm:.4g}, alignment={optional(self.alignment)}"

    def _lack(self) -> str:
        return self.reason or super()._lack()

    def _figures(self) -> Sequence[AnyFigure]:
        return by_block_figure([Series("signal to noise", self.sizes.tolist(), gaps(self.signal_to_noise))], False)


@with_options
def gradient_noise_scale(
    model: nn.Module, loss: PerExample, data: Any, **options: Unpack[Options]
) -> GradientNoiseScale:
    """The simple noise scale of a module's gradient, `tr(Sigma) / |G|^2` in examples, in two passes over the data.

    It is the batch size at which the noise of a stochastic gradient is as large as the gradient (McCandlish et al.,
    arXiv 1812.06162). It is measured between blocks, so the examples must be in random order, or shuffled before; see
    `noiseless.analysis.gradient_noise`. The module is not changed.

    Args:
        model: any `torch.nn.Module`; its mode decides what batch norm and dropout do.
        loss: as for `sharpness`, without weights of examples.
        data: as for `sharpness`.
        **options: see `Options`.

    Returns:
        The noise scale. Without `block` there are at least 16 blocks; smaller ones give a better estimate.
    """
    with prepared("gradient noise", model, loss, data, BLOCKS, **options) as work:
        work.bar.total = 2 * work.chunks
        measured = gradient_noise(work.risk, batch_norm=work.batch_norm)
        total, sizes = measured.total, usual_sizes(measured.block, work.risk.blocks.count)
        ratios = [total.signal_to_noise(size) for size in sizes]
        return GradientNoiseScale(
            value=total.noise_scale,
            interval=total.noise_scale_interval,
            reason=total.reason,
            covariance_trace=total.covariance_trace,
            signal=total.signal,
            signal_interval=total.signal_interval,
            gradient_norm=total.gradient_norm,
            alignment=measured.alignment,
            sizes=np.array(sizes, dtype=np.float64),
            signal_to_noise=np.array([np.nan if ratio is None else ratio for ratio in ratios]),
            layers={name: moments.noise_scale for name, moments in measured.layers.items()},
            **work.common(measured.passes),
        )
