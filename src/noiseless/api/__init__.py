"""Analyses and training of any module in one call, with results that print, plot and go to JSON. The top floor.

They are thin: an `EmpiricalRisk`, a function of `analysis`, and the figures of `report`.
"""

from noiseless.api.curvature import LayerCurvature, curvature_by_layer
from noiseless.api.fitted import Fit
from noiseless.api.fitting import fit
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
    "Fit",
    "Flatness",
    "GradientNoiseScale",
    "HessianDensity",
    "HessianTrace",
    "LayerCurvature",
    "LossLandscape",
    "Sharpness",
    "curvature_by_layer",
    "fit",
    "flatness",
    "gradient_noise_scale",
    "hessian_density",
    "hessian_trace",
    "loss_landscape",
    "sharpness",
]
