"""Noiseless: train neural networks without gradient noise.

Each gradient is the exact mean over all training examples. Which runs minimise one deterministic function, and which
a keyed sequence of functions (fresh augmentation, blocks cut anew), is in docs/design.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from noiseless.exchange.pretrained import from_pretrained, save_pretrained
    from noiseless.objective import (
        EmpiricalRisk,
        Evaluation,
        Execution,
        GradientPenalty,
        Objective,
        Selection,
        SharpnessAware,
        cross_entropy,
        parameter_space,
        squared_error,
    )
    from noiseless.optim import chain, clip_norm, take_step

_HOMES = {
    "noiseless.objective": (
        "EmpiricalRisk", "Evaluation", "Execution", "GradientPenalty", "Objective", "Selection", "SharpnessAware",
        "cross_entropy", "parameter_space", "squared_error",
    ),
    "noiseless.optim": ("chain", "clip_norm", "take_step"),
    "noiseless.exchange.pretrained": ("from_pretrained", "save_pretrained"),
}  # fmt: skip

__all__ = [
    "EmpiricalRisk",
    "Evaluation",
    "Execution",
    "GradientPenalty",
    "Objective",
    "Selection",
    "SharpnessAware",
    "chain",
    "clip_norm",
    "cross_entropy",
    "from_pretrained",
    "parameter_space",
    "save_pretrained",
    "squared_error",
    "take_step",
]


def __getattr__(name: str) -> Any:
    # Names are looked up at first use, so that `noiseless --help` need not wait for torch.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'noiseless' has no attribute {name!r}")
