"""Noiseless: train neural networks without gradient noise.

Each gradient is the exact mean over all training examples. Some runs minimise one deterministic function; others (with
fresh augmentation, or blocks cut anew at each step) minimise a keyed sequence of functions. docs/design.md lists which.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from noiseless.api import (
        curvature_by_layer,
        fit,
        flatness,
        gradient_noise_scale,
        hessian_density,
        hessian_trace,
        loss_landscape,
        sharpness,
    )
    from noiseless.exchange.pretrained import from_pretrained, save_pretrained
    from noiseless.objective import (
        DatasetExamples,
        EmpiricalRisk,
        Evaluation,
        Execution,
        GradientPenalty,
        Objective,
        Selection,
        SharpnessAware,
        classifying,
        cross_entropy,
        parameter_space,
        squared_error,
    )
    from noiseless.optim import chain, clip_norm, take_step

_MODULES = {
    "noiseless.api": (
        "curvature_by_layer", "fit", "flatness", "gradient_noise_scale", "hessian_density", "hessian_trace",
        "loss_landscape", "sharpness",
    ),
    "noiseless.objective": (
        "DatasetExamples", "EmpiricalRisk", "Evaluation", "Execution", "GradientPenalty", "Objective", "Selection",
        "SharpnessAware", "classifying", "cross_entropy", "parameter_space", "squared_error",
    ),
    "noiseless.optim": ("chain", "clip_norm", "take_step"),
    "noiseless.exchange.pretrained": ("from_pretrained", "save_pretrained"),
}  # fmt: skip

__all__ = [
    "DatasetExamples",
    "EmpiricalRisk",
    "Evaluation",
    "Execution",
    "GradientPenalty",
    "Objective",
    "Selection",
    "SharpnessAware",
    "chain",
    "classifying",
    "clip_norm",
    "cross_entropy",
    "curvature_by_layer",
    "fit",
    "flatness",
    "from_pretrained",
    "gradient_noise_scale",
    "hessian_density",
    "hessian_trace",
    "loss_landscape",
    "parameter_space",
    "save_pretrained",
    "sharpness",
    "squared_error",
    "take_step",
]


def __getattr__(name: str) -> Any:
    # Modules are imported at first use, so that `noiseless --help` does not wait for torch.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'noiseless' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
