"""Mean and spread of gradients, estimated from the gradients of blocks, with errors by the jackknife over blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

LEVEL = 0.95
"""of the intervals"""
LEAST = 3
"""smallest number of blocks that gives an error"""


@dataclass(frozen=True)
class Moments:
    """Mean and spread of the gradients of all parameters, or of one parameter tensor.

    S = tr(Sigma) is the trace of the covariance of single examples' gradients. The gradient of a block of B examples
    has the variance S / B, summed over its elements. |G|^2 is the squared norm of the expected gradient.

    The errors are those of the delete-one jackknife (Efron and Stein, Ann. Statist. 1981, doi 10.1214/aos/1176345462):
    with `t_b` the estimate without block b and n blocks, `sqrt((n - 1) / n sum_b (t_b - mean t)^2)`, which is too large
    rather than too small on average. Intervals have Student's quantile for n - 1 degrees of freedom.
    """

    square: float
    """`||g||^2`, squared L2 norm of the full gradient g"""
    covariance_trace: float
    """unbiased estimate of S"""
    examples: int
    """N, number of examples in the full gradient"""
    blocks: int
    """n, number of blocks"""
    signal_error: float | None
    """standard error of `signal`; None for two blocks"""
    scale_error: float | None
    """standard error of `log(S / |G|^2)`; None for two blocks, and where the estimate of |G|^2, or that without one of
    the blocks, is not positive"""

    @property
    def gradient_norm(self) -> float:
        """`||g||`."""
        return math.sqrt(self.square)

    @property
    def signal(self) -> float:
        """`||g||^2 - S / N`, an unbiased estimate of |G|^2, which may be negative."""
        return self.square - self.covariance_trace / self.examples

    @property
    def signal_interval(self) -> tuple[float, float] | None:
        """The interval of |G|^2 at the level `LEVEL`; None for two blocks."""
        if self.signal_error is None:
            return None
        reach = self._quantile() * self.signal_error
        return self.signal - reach, self.signal + reach

    @property
    def noise_scale(self) -> float | None:
        """`S / |G|^2`, the simple noise scale, in examples; None where |G|^2 is not distinguished from zero."""
        return None if self.reason else self.covariance_trace / self.signal

    @property
    def noise_scale_interval(self) -> tuple[float, float] | None:
        """The interval of the noise scale at the level `LEVEL`, from the error of its logarithm; None where it is."""
        scale = self.noise_scale
        if scale is None:
            return None
        assert self.scale_error is not None
        factor = math.exp(min(700.0, self._quantile() * self.scale_error))
        return scale / factor, scale * factor

    @property
    def reason(self) -> str | None:
        """Why |G|^2 is not distinguished from zero, so that there is no noise scale; None where it is."""
        if self.square == 0:
            return "the full gradient is zero"
        interval = self.signal_interval
        if interval is None:
            return f"{self.blocks} blocks give no error of |G|^2: choose a block of a third of the examples or less"
        if interval[0] > 0 and self.scale_error is not None:
            return None
        return (
            f"|G|^2 is {self.signal:.3g}, with a {LEVEL:.0%} interval from {interval[0]:.3g} to {interval[1]:.3g} over"
            f" {self.blocks} blocks: it cannot be distinguished from zero"
        )

    def signal_to_noise(self, block: int) -> float | None:
        """`|G|^2 / (S / B)`: signal-to-noise ratio of the gradient of a block of B examples, drawn independently.

        Args:
            block: B.

        Returns:
            The ratio of squared norms; infinity if S is 0; None if |G|^2 is not distinguished from zero.
        """
        if self.reason:
            return None
        return self.signal / (self.covariance_trace / block) if self.covariance_trace else math.inf

    def noise_norm(self, block: int) -> float:
        """`sqrt((S / B) (1 - B / N))`: root mean square L2 distance of a mini-batch gradient from the full gradient.

        Args:
            block: B, examples drawn from the N without replacement.

        Returns:
            The distance; 0 for B >= N.
        """
        return math.sqrt(max(0.0, self.covariance_trace / block * (1 - block / self.examples)))

    def _quantile(self) -> float:
        from scipy.stats import t

        return float(t.ppf((1 + LEVEL) / 2, self.blocks - 1))


def moments(square: float, sum_of_squares: float, spreads: Tensor, along: Tensor, counts: Tensor) -> Moments:
    """Moments from what is known of each block, with `d_b = g_b - g`.

    Without block b, of n_b examples, g moves by `-n_b / (N - n_b) d_b`, and the sum of squares falls by
    `n_b N / (N - n_b) ||d_b||^2`.

    Args:
        square: `||g||^2`.
        sum_of_squares: `sum_b n_b ||d_b||^2`.
        spreads: `||d_b||^2`, float64 `[n]`.
        along: `d_b . g`, float64 `[n]`.
        counts: n_b, float64 `[n]`.

    Returns:
        The moments.
    """
    blocks, examples = len(counts), int(counts.sum())
    trace = sum_of_squares / (blocks - 1)
    if blocks < LEAST:
        return Moments(square, trace, examples, blocks, None, None)
    left = examples - counts
    share = counts / left
    traces = ((sum_of_squares - counts * examples / left * spreads) / (blocks - 2)).clamp(min=0)
    signals = square - 2 * share * along + share.square() * spreads - traces / left
    scale_error: float | None = None
    if trace == 0:
        scale_error = 0.0
    elif bool((signals > 0).all()) and square - trace / examples > 0 and bool((traces > 0).all()):
        scale_error = _jackknife((traces / signals).log())
    return Moments(square, trace, examples, blocks, _jackknife(signals), scale_error)


def _jackknife(estimates: Tensor) -> float:
    """The standard error from the estimates without one block each."""
    values = estimates.tolist()
    mean = math.fsum(values) / len(values)
    return math.sqrt((len(values) - 1) / len(values) * math.fsum((value - mean) ** 2 for value in values))
