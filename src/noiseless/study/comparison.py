"""Statistics of the difference in accuracy between two groups of runs, with its error over seeds and test images.

The functions take arrays `correct [S, M]`: whether the run of seed s classifies test image i correctly. `compared.py`
reads these arrays from runs.

Seeds and images are two crossed random factors. With D the mean of the differences
`d[s, i] = 100 (A[s, i] - B[s, i])` over S seeds and M images, in percentage points,

    d[s, i] = D + seed_s + image_i + interaction_si
    var D = sigma_seed^2 / S + sigma_image^2 / M + sigma_interaction^2 / (S M).

var D is estimated by the method of moments of this model (Searle, Casella, McCulloch: Variance Components, 1992; Owen:
The pigeonhole bootstrap, 2007, arXiv 0712.1111, has the same variance of a mean over crossed factors):

    V_seeds       = var_s(mean_i d) / S,   expectation sigma_seed^2 / S  + sigma_interaction^2 / (S M)
    V_images      = var_i(mean_s d) / M,   expectation sigma_image^2 / M + sigma_interaction^2 / (S M)
    V_interaction = residual mean square / (S M),      expectation         sigma_interaction^2 / (S M)
    residual mean square = sum_si (d[s, i] - mean_i d - mean_s d + D)^2 / ((S - 1) (M - 1))
    V             = max(V_seeds + V_images - V_interaction, V_seeds, V_images, V_interaction)

V_seeds and V_images each contain the interaction once, so it is subtracted once. The maximum takes sigma_seed^2 or
sigma_image^2 as 0 where its estimate is negative. var_s and var_i are sample variances, divided by S - 1 and M - 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

POINTS = 100.0
"""percentage points of a share of 1: a share times POINTS is in %"""
EQUIVALENCE_LEVEL = 0.05
"""significance level of each of the two one-sided tests"""

Correct = NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """Mean accuracy of A minus mean accuracy of B, with its estimated variance."""

    difference: float
    """D, in percentage points"""
    variance_seeds: float | None
    """V_seeds, in squared points; None where a group has one seed, which is not enough to estimate it"""
    variance_images: float
    """V_images, in squared points"""
    variance_interaction: float | None
    """V_interaction, in squared points; None where a group has one seed"""
    variance: float
    """V, in squared points; V_images where a group has one seed"""
    degrees: float
    """degrees of freedom of V, by Satterthwaite's formula"""
    paired: bool
    """whether the groups were paired by seed"""

    @property
    def images_only(self) -> bool:
        """Whether the variance is over images only, so that the interval does not cover other seeds."""
        return self.variance_seeds is None

    @property
    def standard_error(self) -> float:
        """`sqrt(V)`, in points."""
        return math.sqrt(self.variance)

    @property
    def p(self) -> float:
        """Two-sided p value of D = 0, by Student's t: `2 P(t > |D| / sqrt(V))`."""
        return min(1.0, 2 * self._above(abs(self.difference)))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Confidence interval of the difference, `D -+ t_((1 + confidence) / 2) sqrt(V)`, in points.

        Args:
            confidence: probability in (0, 1) with which the interval covers D.

        Returns:
            Lower and upper end.
        """
        half = float(stats.t.ppf((1 + confidence) / 2, self.degrees)) * self.standard_error
        return self.difference - half, self.difference + half

    def equivalence(self, margin: float) -> float:
        """Tests whether the difference is within a margin, by two one-sided t tests (TOST).

        The p value is below 0.05 if and only if the 90 % interval lies within -margin ... margin (Schuirmann 1987, doi
        10.1007/BF01068419).

        Args:
            margin: margin of equivalence in points, positive.

        Returns:
            The larger of the p values of `D <= -margin` and `D >= margin`.
        """
        return max(self._above(margin + self.difference), self._above(margin - self.difference))

    def _above(self, distance: float) -> float:
        """`P(t > distance / sqrt(V))`; if V is 0: 0 for a positive distance, otherwise 1."""
        if self.variance == 0:
            return float(distance <= 0)
        return float(stats.t.sf(distance / self.standard_error, self.degrees))


@dataclass(frozen=True)
class Agreement:
    """How many images both runs of a pair classify correctly, only one, or neither: means over pairs (A, B)."""

    pairs: int
    """number of pairs: S pairs of equal seed, or all S_A S_B pairs where the seeds differ"""
    both: float
    only_first: float
    only_second: float
    neither: float


def compare(first: Correct, second: Correct, paired: bool) -> Comparison:
    """Compares two groups of runs on the same images.

    Where the groups are not paired, the variances of seeds and of the interaction are estimated in each group and
    added. The images are the same in both groups, so V_images is still that of the difference. The degrees of freedom
    are Satterthwaite's (1946, doi 10.2307/3002019), with S - 1, M - 1 and (S - 1) (M - 1) for the mean squares:

        V^2 / (V_seeds^2 / (S - 1) + V_images^2 / (M - 1) + V_interaction^2 / ((S - 1) (M - 1))),

    For unpaired groups, the first and the last term of the denominator are sums over both groups. Where V is the
    maximum of the single estimates, only the terms of that estimate are in the denominator. All sums are sums of whole
    numbers, so the order of images and seeds does not change a bit of the result.

    Args:
        first: correctness of A, `[S_A, M]`.
        second: correctness of B, `[S_B, M]`; if paired, of the same seeds in the same order.
        paired: whether row s of both groups has the same seed.

    Returns:
        The comparison.

    Raises:
        ValueError: if there are fewer than two images, or the shapes do not fit.
    """
    _refuse_shapes(first, second, paired)
    a, b = first.astype(np.int64), second.astype(np.int64)
    images = a.shape[1]
    # S_A S_B times the difference of mean accuracy, for each image
    by_image = len(b) * a.sum(0) - len(a) * b.sum(0)
    cells = len(a) * len(b) * images
    difference = POINTS * int(by_image.sum()) / cells
    of_images = POINTS**2 * _squares(by_image) / (images - 1) / cells**2
    if min(len(a), len(b)) == 1:
        return Comparison(difference, None, of_images, None, of_images, images - 1, paired)
    tables = [a - b] if paired else [a, b]
    seeds, interactions = [_seeds(table) for table in tables], [_interaction(table) for table in tables]
    by_images = [_Part(of_images, images - 1)]
    of_seeds, of_interaction = (sum(part.value for part in parts) for parts in (seeds, interactions))
    variance, parts = max(
        (of_seeds + of_images - of_interaction, [*seeds, *by_images, *interactions]),
        (of_seeds, seeds),
        (of_images, by_images),
        (of_interaction, interactions),
        key=lambda estimate: estimate[0],
    )
    degrees = _satterthwaite(variance, parts)
    return Comparison(difference, of_seeds, of_images, of_interaction, variance, degrees, paired)


def agreement(first: Correct, second: Correct, paired: bool) -> Agreement:
    """Counts the images that both runs of a pair, one of them, or neither classifies correctly.

    Args:
        first: correctness of A, `[S_A, M]`.
        second: correctness of B, `[S_B, M]`; if paired, of the same seeds in the same order.
        paired: True: pairs are runs of equal seed; False: all pairs of a run of A and a run of B.

    Returns:
        Numbers of images, means over pairs; they add up to M.

    Raises:
        ValueError: if there are fewer than two images, or the shapes do not fit.
    """
    _refuse_shapes(first, second, paired)
    a, b = first.astype(np.int64), second.astype(np.int64)
    pairs = len(a) if paired else len(a) * len(b)
    both = int((a * b).sum() if paired else (a.sum(0) * b.sum(0)).sum())
    right_a, right_b = (int(x.sum()) * (pairs // len(x)) for x in (a, b))  # over all pairs
    counts = (both, right_a - both, right_b - both, pairs * a.shape[1] - right_a - right_b + both)
    return Agreement(pairs, *(count / pairs for count in counts))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p values for their number by Holm's method (1979), which bounds the probability of any false rejection.

    Args:
        p_values: one or more p values.

    Returns:
        The adjusted p values, in the same order.
    """
    from statsmodels.stats.multitest import multipletests  # takes seconds to import

    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def verdict(adjusted_p: float, equivalence_p: float, margin: float, confidence: float) -> str:
    """States the result of a comparison in words.

    Args:
        adjusted_p: two-sided p value of no difference, adjusted for the number of comparisons.
        equivalence_p: p value of the two one-sided tests.
        margin: margin of equivalence, in points.
        confidence: the level of the test of a difference is 1 - confidence; that of the one-sided tests is 0.05.

    Returns:
        "different", "equivalent", "different, but within MARGIN" where both hold, or "undecided".
    """
    different, equivalent = adjusted_p < 1 - confidence, equivalence_p < EQUIVALENCE_LEVEL
    if different:
        return f"different, but within {margin:g}" if equivalent else "different"
    return "equivalent" if equivalent else "undecided"


@dataclass(frozen=True)
class _Part:
    """One term of a variance, in squared points, with its degrees of freedom."""

    value: float
    degrees: int


def _seeds(table: NDArray[np.int64]) -> _Part:
    """`var_s(mean_i x) / S` of a table x `[S, M]` of whole numbers, in squared points."""
    seeds, images = table.shape
    value = POINTS**2 * _squares(table.sum(1)) / (seeds - 1) / (seeds * images) ** 2
    return _Part(value, seeds - 1)


def _interaction(table: NDArray[np.int64]) -> _Part:
    """Residual mean square over `S M` of a table x `[S, M]` of whole numbers, in squared points."""
    seeds, images = table.shape
    # S M times the residual sum of squares, a whole number
    sums = seeds * images * int((table**2).sum()) + int(table.sum()) ** 2
    sums -= seeds * int((table.sum(1) ** 2).sum()) + images * int((table.sum(0) ** 2).sum())
    degrees = (seeds - 1) * (images - 1)
    return _Part(POINTS**2 * sums / degrees / (seeds * images) ** 2, degrees)


def _squares(values: NDArray[np.int64]) -> int:
    """Sum of squared deviations of n whole numbers from their mean, times n, which makes it a whole number."""
    return len(values) * int((values**2).sum()) - int(values.sum()) ** 2


def _satterthwaite(variance: float, parts: Sequence[_Part]) -> float:
    """Degrees of freedom of a sum of parts; if it is 0, the smallest of the parts, which does not matter then."""
    if variance == 0:
        return min(part.degrees for part in parts)
    return variance**2 / sum(part.value**2 / part.degrees for part in parts)


def _refuse_shapes(first: Correct, second: Correct, paired: bool) -> None:
    """Raises unless both are `[seeds, images]` with the same images, at least two, and the same seeds if paired."""
    shapes = first.shape, second.shape
    fit = len(shapes[0]) == len(shapes[1]) == 2 and shapes[0][1] == shapes[1][1] and min(*shapes[0], *shapes[1]) > 0
    if not fit or (paired and shapes[0] != shapes[1]):
        raise ValueError(f"shapes must be [seeds, images] with the same images, not {shapes[0]} and {shapes[1]}")
    if shapes[0][1] < 2:
        raise ValueError("a comparison needs at least two test images, not one")
