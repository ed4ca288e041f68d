"""Powers of Python numbers within optimizers, which would be the C library's: not the same bits on every machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from noiseless.portable import constants
from noiseless.portable.mode import active

OPTIMIZERS = ("SGD", "Adam", "AdamW", "Muon")
"""names of optimizers whose steps are portable: their formulas have no other function of Python numbers"""


class Number(float):
    """A float whose powers are computed in software, as are those of its difference from a number."""

    def __pow__(self, exponent: float) -> Number:  # type: ignore[override]
        """`self**exponent`, for a base of at least 0."""
        return Number(math.sqrt(self) if exponent == 0.5 else constants.power(float(self), float(exponent)))

    def __rsub__(self, other: float) -> Number:
        """`other - self`."""
        return Number(float(other) - float(self))


@contextmanager
def portable_powers(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """A context in which an optimizer's betas, whose powers it takes, are such numbers; elsewhere nothing is changed.

    Args:
        optimizer: any; its groups are put back.

    Yields:
        Nothing.
    """
    groups = [group for group in optimizer.param_groups if "betas" in group] if active() else []
    before: list[Any] = [group["betas"] for group in groups]
    for group in groups:
        group["betas"] = tuple(Number(beta) for beta in group["betas"])
    try:
        yield
    finally:
        for group, betas in zip(groups, before, strict=True):
            group["betas"] = betas
