"""Bins of an exact sum on a device that is not to be waited for: its numbers are never read while terms are added.

On a CPU, an exact sum reads the largest value of each term to choose its bins. On a GPU, such a read waits until all
work before it is done, and the GPU idles until the next is sent. Here the choice stays on the device. The bins are a
function of the terms alone (see `exactsum`), so both ways give the same bits.

An element whose terms are not all finite has their sum, infinite or NaN, in the highest bin, which then holds no whole
number; its other bins hold nothing of use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from noiseless.objective import kernels
from noiseless.objective.bins import LOWEST, WIDTH


def stays(device: torch.device) -> bool:
    """Whether the sums of a sweep on this device are not to be read before its end: true of all but CPUs."""
    return device.type != "cpu"


class ResidentBins:
    """Three bins of each element, and the place of the highest, on one device.

    Args:
        bins: float64 `[3, length]`, as of an `ExactSum`; they are added to in place.
        top: place of the highest.
        special: sum of the terms that are not finite, float64 `[length]`; None: all are.
    """

    def __init__(self, bins: Tensor, top: int, special: Tensor | None):
        self._bins = bins
        self._top = torch.full((), top, dtype=torch.int64, device=bins.device)
        if special is not None:
            bins[0] = torch.where(special == 0, bins[0], special)

    def add(self, terms: Tensor, weights: Tensor) -> None:
        """Adds `weights[k] * terms[k]` for each k, without reading a number of the device.

        Args:
            terms: `[K, length]`.
            weights: float64, `[K]` or `[K, length]`, on the same device.

        Raises:
            ValueError: if there are more or fewer weights than terms.
        """
        if len(weights) != len(terms):
            raise ValueError(f"each term needs one weight as argument: {len(terms)} terms have {len(weights)} weights")
        if not terms.numel():
            return
        weights = weights[:, None] if weights.ndim == 1 else weights
        before, largest, deposit = self._top, *kernels.chosen(terms.device)
        self._top = torch.maximum(before, top_of(largest(terms, weights)))
        deposit(self._bins, terms, weights, before, self._top)

    def settled(self) -> tuple[int, Tensor | None]:
        """Reads the place of the highest bin, and takes out of the bins what is not finite.

        Returns:
            Both, as an `ExactSum` keeps them; the bins are those that were given.
        """
        finite = self._bins[0].isfinite()
        top, all_finite = torch.stack((self._top, finite.all().to(torch.int64))).tolist()
        if all_finite:
            return top, None
        special = torch.where(finite, 0.0, self._bins[0])
        self._bins[:] = torch.where(finite, self._bins, 0.0)
        return top, special


def top_of(largest: Tensor) -> Tensor:
    """`bins.top_of` of a number on a device, float64 `[]`: int64 `[]`."""
    mantissa, exponent = torch.frexp(largest)
    exponent = exponent.to(torch.int64) - (mantissa == 0.5).to(torch.int64)
    top = torch.div(exponent + WIDTH, WIDTH, rounding_mode="floor") - 1
    return torch.where(largest == 0, LOWEST, top.clamp(min=LOWEST))
