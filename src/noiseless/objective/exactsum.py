"""The one accumulator behind every sweep: a sum that does not depend on the order of its terms.

Reproducible summation by pre-rounding into bins (Demmel and Nguyen, IEEE TC 2015, doi 10.1109/TC.2014.2345391; the bins
as in ReproBLAS), in the form that a tensor of sums needs.

**Method.** The real line is cut at the fixed places u_i = 2**(32 i). A term x is split from the top: its part in bin i
is the multiple of u_i nearest to what the bins above have left over, `k_i u_i`. So k_i depends on x alone; it is 0 in
each bin with `|x| < u_i / 2`, and `|k_i| <= 2**31` in all. The sum keeps three bins, I, I-1 and I-2, where I is the
lowest one for which every term of the tensor so far has `|x| <= u_(I+1) / 2`. A larger term moves I up and drops the
lowest bins.

**Why the order does not matter.** I is a maximum, and each bin holds `sum_j k_i(x_j)`: whole numbers below 2**53, which
float64 adds without rounding. Both are independent of order and grouping, bins that were dropped are just those that
the final I leaves out, and so the three bins come out the same from any order, any partition into partial sums, and
any tree or ring of an all-reduce (a maximum for I, then an ordinary sum).

**Error.** A term loses at most `u_(I-2) / 2`, and the largest is above `u_I / 2`: at most `2**-64 max|x|` a term. A
term above `2**-10 max|x|` loses nothing, as its last bit is a multiple of u_(I-2). The final value is the bins' exact
sum rounded to nearest (up to a relative 2**-105). In all

    |result - sum x| <= n 2**-53 max|x|,

with the maximum over the tensor. The final rounding loses at most 2**-53 |sum x| <= 2**-53 n max|x|. A term that loses
anything is below 2**-10 max|x|, so it makes |sum x| smaller than n max|x|, and 2**-53 times this difference exceeds its
loss of at most 2**-64 max|x|. A sequential float64 sum has no better bound. An element takes at most 2**21 terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from noiseless.objective import resident
from noiseless.objective.bins import LOWEST, WIDTH, factors, largest_of, slice_of, top_of

MOST_TERMS = 2**21
"""terms of a sum; each adds at most 2**31 to a bin, so bins stay at most 2**52, exact in float64"""


class ExactSum:
    """A weighted sum of vectors, `sum_k w_k x_k`, with the same bits for any order and grouping of its terms.

    Products `w_k x_k` are computed in float64 (exact for float32 terms and whole weights below 2**29). With infinities
    or NaN among the terms, an element is their sum: infinity, or NaN if there is a NaN or both infinities.

    Args:
        length: length of the vectors.
        device: device of the bins and of the terms.
    """

    def __init__(self, length: int, device: torch.device | str = "cpu"):
        self._length, self._device = length, torch.device(device)
        self._filled: Tensor | None = None
        self._only: tuple[Tensor, Tensor] | None = None
        self._top = LOWEST
        self._terms = 0
        self._special: Tensor | None = None
        self._resident: resident.ResidentBins | None = None
        """on a device: the bins while terms are added; they hold what `_top` and `_special` do not know yet"""

    def add(self, terms: Tensor, weights: Tensor) -> None:
        """Adds `weights[k] * terms[k]` for each k.

        Args:
            terms: `[K, length]`, float32 or float64.
            weights: float64, `[K]`, or `[K, length]` for one weight per element.

        Raises:
            ValueError: beyond 2**21 terms.
        """
        self._terms += len(terms)
        if self._terms > MOST_TERMS:
            raise ValueError(f"an exact sum takes at most {MOST_TERMS} terms: choose larger blocks")
        weights = weights.to(terms.device, torch.float64, non_blocking=True)
        if self._terms == 1 == len(weights):
            self._only = terms.clone(), weights
            return
        only, self._only = self._only, None
        if only is not None:
            self._add(*only)
        self._add(terms, weights)

    def _add(self, terms: Tensor, weights: Tensor) -> None:
        if resident.stays(self._device):
            if self._resident is None:
                self._resident = resident.ResidentBins(self._bins, self._top, self._special)
            self._resident.add(terms, weights)
            return
        for term, weight in zip(terms, weights, strict=True):
            if weight.ndim:
                term, weight = term.double() * weight, weight.new_ones(())
            largest = largest_of(term) * abs(float(weight))
            if not math.isfinite(largest):
                term, weight = self._set_aside(term.double() * weight), weight.new_ones(())
                largest = float(term.abs().max())
            self._raise_top(top_of(largest))
            self._add_one(term, float(weight))

    @property
    def _bins(self) -> Tensor:
        """float64 `[3, length]`: what the bins I, I-1 and I-2 hold, in their units."""
        if self._filled is None:
            self._filled = torch.zeros(3, self._length, dtype=torch.float64, device=self._device)
        return self._filled

    def _settle(self) -> None:
        """Brings all terms into the bins: also one that is alone so far, and what is known on the device only."""
        if self._only is not None:
            only, self._only = self._only, None
            self._add(*only)
        if self._resident is not None:
            self._top, self._special = self._resident.settled()
            self._resident = None

    def merge(self, other: ExactSum) -> None:
        """Adds another sum's terms."""
        self._settle()
        other._settle()
        self._terms += other._terms
        self._raise_top(other._top)
        shift = min(self._top - other._top, 3)
        self._bins[shift:] += other._bins[: 3 - shift]
        if other._special is not None:
            self._special = other._special if self._special is None else self._special + other._special

    def tensors(self) -> dict[str, Tensor]:
        """The state of the sum as named tensors, for a file."""
        self._settle()
        tensors = {"bins": self._bins, "place": torch.tensor([self._top, self._terms])}
        return tensors if self._special is None else tensors | {"special": self._special}

    def filled(self, tensors: dict[str, Tensor]) -> ExactSum | None:
        """The sum that these tensors, as returned by `tensors`, hold, on this sum's device; None for another length."""
        bins, place = tensors.get("bins"), tensors.get("place")
        if bins is None or place is None or bins.shape != (3, self._length):
            return None
        filled = ExactSum(self._length, self._device)
        filled._filled = bins.to(self._device)
        filled._top, filled._terms = (int(x) for x in place)
        filled._special = tensors["special"].to(self._device) if "special" in tensors else None
        return filled

    def value(self) -> Tensor:
        """The sum so far, float64 `[length]`."""
        if self._only is not None:
            alone = self._value_of_one(*self._only)
            if alone is not None:
                return alone
        self._settle()
        result = torch.empty(self._length, dtype=torch.float64, device=self._device)
        size = slice_of(self._device)
        for start in range(0, len(result), size):  # temporaries of full length would be as large as the sum
            part = slice(start, start + size)
            result[part] = self._rounded(part)
        return result

    def _value_of_one(self, terms: Tensor, weights: Tensor) -> Tensor | None:
        """The sum of one term: the multiple of u_(I-2) nearest to it, as the bins give it; None if it needs them."""
        if weights.ndim > 1 or not math.isfinite(largest := largest_of(terms[0]) * abs(float(weights[0]))):
            return None
        exponent = WIDTH * (top_of(largest) - 2)
        (down, down_rest), (up, up_rest) = factors(-exponent), factors(exponent)
        if (down_rest, up_rest) != (1.0, 1.0):
            return None
        result, weight = torch.empty(self._length, dtype=torch.float64, device=self._device), float(weights[0])
        size = slice_of(self._device)
        for start in range(0, self._length, size):
            part = result[start : start + size]
            part.copy_(terms[0, start : start + size]).mul_(weight * down).round_().add_(0.0).mul_(up)  # no -0
        return result

    def _rounded(self, part: slice) -> Tensor:
        high, middle, low = self._bins[:, part]
        high = high * 2.0**WIDTH
        total = high + middle
        rounded = total - high
        error = (high - (total - rounded)) + (middle - rounded)  # total + error is the exact sum of the two
        result = _scaled(total + (error + low * 2.0**-WIDTH), WIDTH * (self._top - 1))
        if self._special is not None:
            special = self._special[part]
            result = torch.where(special == 0, result, special)
            result = torch.where(result.isnan(), torch.nan, result)  # the same NaN for all
        return result

    def _raise_top(self, top: int) -> None:
        shift = min(top - self._top, 3)
        if shift > 0:
            self._bins[shift:] = self._bins[: 3 - shift].clone()
            self._bins[:shift] = 0
            self._top = top

    def _add_one(self, term: Tensor, weight: float) -> None:
        factor, rest = factors(-WIDTH * self._top)
        size = min(slice_of(self._device), len(term))
        parts, multiples = torch.empty(2, size, dtype=torch.float64, device=term.device)
        for start in range(0, len(term), size or 1):
            bins = self._bins[:, start : start + size]
            part, multiple = parts[: bins.shape[1]], multiples[: bins.shape[1]]
            part.copy_(term[start : start + size])
            part.mul_(weight * factor) if rest == 1.0 else part.mul_(weight).mul_(factor).mul_(rest)
            for one in bins[:2]:
                torch.round(part, out=multiple)
                one.add_(multiple)
                part.sub_(multiple).mul_(2.0**WIDTH)
            bins[2].add_(part.round_())

    def _set_aside(self, term: Tensor) -> Tensor:
        finite = term.isfinite()
        special = torch.where(finite, 0.0, term)
        self._special = special if self._special is None else self._special + special
        return torch.where(finite, term, 0.0)


Together = Callable[[list[Tensor]], None]
"""replaces each element of the tensors by its maximum, or its sum, over the workers"""


def reduce(sums: Sequence[ExactSum], maximum: Together, total: Together, others: Sequence[Tensor] = ()) -> None:
    """Adds the terms of the other workers to each sum, in one exchange of small numbers and one of bins.

    Args:
        sums: the same sums in the same order at each worker.
        maximum: takes the maximum over the workers.
        total: takes the sum over the workers, by any ring or tree, as it adds whole numbers that are exact in float64.
        others: further tensors to be summed over the workers in the same exchange.
    """
    if not sums:
        total(list(others))
        return
    for one in sums:
        one._settle()
    known = torch.tensor([[one._top, one._special is not None] for one in sums])
    maximum([known])
    for one, (top, special) in zip(sums, known.tolist(), strict=True):
        one._raise_top(top)
        if special and one._special is None:
            one._special = torch.zeros_like(one._bins[0])
    terms = torch.tensor([one._terms for one in sums])
    total([terms, *others, *(t for one in sums for t in (one._bins, one._special) if t is not None)])
    for one, count in zip(sums, terms.tolist(), strict=True):
        one._terms = count


def align(sums: Sequence[ExactSum], maximum: Together) -> None:
    """Gives all sums one position: the highest that any of them has at any worker.

    Sums of slices of a vector, however it is cut and whichever worker has which slice, then have the bits of one sum of
    the whole vector.

    Args:
        sums: the sums of this worker's slices.
        maximum: takes the maximum over the workers.
    """
    for one in sums:
        one._settle()
    top = torch.tensor([max((one._top for one in sums), default=LOWEST)])
    maximum([top])
    for one in sums:
        one._raise_top(int(top))


def exact_total(values: Tensor) -> float:
    """The sum of float64 values, correctly rounded in any order (`math.fsum`); inf and NaN as in `ExactSum`."""
    listed = values.tolist()
    special = [v for v in listed if not math.isfinite(v)]
    if special:
        return sum(special) if len(set(special)) == 1 else math.nan
    return math.fsum(listed)


def _scaled(x: Tensor, exponent: int) -> Tensor:
    factor, rest = factors(exponent)
    return x * factor * rest
