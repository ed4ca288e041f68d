"""Rounding error of a run's loss and gradient in float32 and bfloat16, against the same in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from noiseless.ask.state import load_state
from noiseless.ask.verify import RoundingDifference, gradient, rounding_difference
from noiseless.files.address import StateAddress
from noiseless.objective import Evaluation
from noiseless.objective.workers import Alone
from noiseless.recipes.config import Config
from noiseless.recipes.flags import with_flags


@dataclass(frozen=True)
class _Arithmetic:
    """The number formats in which a gradient is computed."""

    dtype: Literal["float32", "float64"]
    autocast: Literal["none", "bfloat16"] = "none"
    compile: Literal["on", "off"] = "off"

    def __str__(self) -> str:
        autocast = "" if self.autocast == "none" else f", {self.autocast} autocast"
        return f"{self.dtype}{autocast}{', compiled' if self.compile == 'on' else ''}"

    def change(self, config: Config) -> Config:
        recipe = with_flags(config.recipe, dtype=self.dtype, autocast=self.autocast)
        return Config(recipe, replace(config.settings, compile=self.compile))


EXACT = _Arithmetic("float64")
OTHERS = (_Arithmetic("float32"), _Arithmetic("float32", "bfloat16"))


def against_float64(address: StateAddress) -> list[RoundingDifference]:
    """Compares loss and gradient at a state of a run with those computed in float64.

    In the float64 reference, the model, the data (with normalisation and augmentation) and all arithmetic are float64.
    The state is the same, as float32 numbers are exact in float64; a penalty's probes have the same length. Only one
    model is in memory at a time.

    Args:
        address: which run, and which of its states.

    Returns:
        The differences of loss and gradient as the run computes them, in plain float32, and in float32 with bfloat16
        autocast.
    """
    config = address.directory.config()
    compiled: Literal["on", "off"] = "on" if config.settings.compile == "on" else "off"
    run_arithmetic = _Arithmetic(config.recipe.model.dtype, config.recipe.model.autocast, compiled)
    ways = [run_arithmetic, *(way for way in OTHERS if way != run_arithmetic)]
    reference = _evaluation(address, EXACT)
    rows = []
    for way in ways:
        if way == EXACT:
            continue
        computed = _evaluation(address, way)
        text = f"as the run does: {way}" if way == run_arithmetic else str(way)
        row = rounding_difference(text, computed.gradient.cpu(), reference.gradient.cpu())
        rows.append(replace(row, loss=abs(computed.loss - reference.loss) / abs(reference.loss)))
    return rows


def penalty_noise(address: StateAddress) -> float | None:
    """The rounding noise of a penalty's finite difference, on the first block at a state of a run.

    With d the difference as the run computes it, which stands for `H g` of the block, and d64 that in float64, it is
    `||d - d64|| / ||d64||`.

    Args:
        address: which run, and which of its states.

    Returns:
        The relative error; None for a run in float64, without a penalty, or whose penalty takes no differences.
    """
    if address.directory.config().recipe.model.dtype == "float64":
        return None
    computed = _difference(address, lambda config: config)
    if computed is None:
        return None
    exact = _difference(address, EXACT.change)
    return None if exact is None else rounding_difference("", computed, exact).relative


def _difference(address: StateAddress, change: Callable[[Config], Config]) -> Tensor | None:
    """The penalty's difference on the first block, float64 `[P]`."""
    penalty = load_state(address, Alone(), change).penalised
    difference = penalty.block_difference(0) if penalty else None
    return None if difference is None else difference.double().cpu()


def _evaluation(address: StateAddress, way: _Arithmetic) -> Evaluation:
    return gradient(address, Alone(), way.change)
