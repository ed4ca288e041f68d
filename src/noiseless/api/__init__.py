"""Analyses of any module in one call, with results that print, plot and go to JSON. The top floor for Python.

They are thin: an `EmpiricalRisk`, a function of `analysis`, and the figures of `report`.
"""

from noiseless.api.hessian import (
    HessianDensity,
    HessianTrace,
    Sharpness,
    hessian_density,
    hessian_trace,
    sharpness,
)
from noiseless.api.landscape import Flatness, LossLandscape, flatness, loss_landscape
from noiseless.api.noise import GradientNoiseScale, gradient_noise_scale

__all__ = [
    "Flatness",
    "GradientNoiseScale",
    "HessianDensity",
    "HessianTrace",
    "LossLandscape",
    "Sharpness",
    "flatness",
    "gradient_noise_scale",
    "hessian_density",
    "hessian_trace",
    "loss_landscape",
    "sharpness",
]
