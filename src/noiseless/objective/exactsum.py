"""The one accumulator behind every sweep: gradients, loss, hits, penalty and batch-norm statistics pass through it."""

from __future__ import annotations

import torch
from torch import Tensor


class ExactSum:
    """A weighted sum of vectors, `sum_k w_k x_k`, in float64 and in the order in which terms are added.

    A float32 term times a whole weight below 2**29 is exact in float64; the additions round to 2**-53 relative each.
    """

    def __init__(self, length: int, device: torch.device | str = "cpu"):
        self._total = torch.zeros(length, dtype=torch.float64, device=device)

    def add(self, terms: Tensor, weights: Tensor) -> None:
        """Adds `weights[k] * terms[k]` for each k, in order.

        Args:
            terms: `[K, length]`.
            weights: float64, `[K]`, or `[K, length]` for a weight an element.
        """
        for term, weight in zip(terms, weights.to(self._total.device), strict=True):
            self._total.addcmul_(term.double(), weight)

    def value(self) -> Tensor:
        """The sum so far, float64 `[length]`."""
        return self._total.clone()
