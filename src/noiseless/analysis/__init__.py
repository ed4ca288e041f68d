"""Measurements of an objective at its module's present parameters: spectrum, noise, landscape, flatness, norms.

Parameters and modes that a measurement changes are restored at its end.
"""

from noiseless.analysis.batchsharpness import BatchSharpness, batch_sharpness
from noiseless.analysis.density import Density, Trace, density, trace
from noiseless.analysis.directions import (
    Normalised,
    PrincipalDirections,
    difference,
    normalise,
    principal_directions,
    random_direction,
    scaling_text,
)
from noiseless.analysis.flatness import Flatness, average_flatness
from noiseless.analysis.landscape import LandscapePoint, LossLandscape, LossSurface, loss_landscape
from noiseless.analysis.modes import BatchNorm, module_mode
from noiseless.analysis.moments import Moments
from noiseless.analysis.noise import (
    GradientNoise,
    check_blocks,
    gradient_noise,
    gradient_noise_scale,
    noise_passes,
    usual_sizes,
)
from noiseless.analysis.operator import Hessian, Operator, Preconditioned, as_linear_operator
from noiseless.analysis.sharpening import Sharpening, eigenvalue_gradient, eigenvalue_gradient_passes, sharpening
from noiseless.analysis.spectrum import Eigenpairs, TopEigenvalues, top_eigenvalues
from noiseless.analysis.stability import StepStability, preconditioned, stability_threshold, step_stability
from noiseless.analysis.steepest import SpectralSharpness, spectral_sharpness, steepest
from noiseless.analysis.tracking import Catapult, Crossing, Tracked, catapults, crossings, step_ratio, tracked
from noiseless.analysis.weights import Weights, layers_of, weights

__all__ = [
    "BatchNorm",
    "BatchSharpness",
    "Catapult",
    "Crossing",
    "Density",
    "Eigenpairs",
    "Flatness",
    "GradientNoise",
    "Hessian",
    "LandscapePoint",
    "LossLandscape",
    "LossSurface",
    "Moments",
    "Normalised",
    "Operator",
    "Preconditioned",
    "PrincipalDirections",
    "Sharpening",
    "SpectralSharpness",
    "StepStability",
    "TopEigenvalues",
    "Trace",
    "Tracked",
    "Weights",
    "as_linear_operator",
    "average_flatness",
    "batch_sharpness",
    "catapults",
    "check_blocks",
    "crossings",
    "density",
    "difference",
    "eigenvalue_gradient",
    "eigenvalue_gradient_passes",
    "gradient_noise",
    "gradient_noise_scale",
    "layers_of",
    "loss_landscape",
    "module_mode",
    "noise_passes",
    "normalise",
    "preconditioned",
    "principal_directions",
    "random_direction",
    "scaling_text",
    "sharpening",
    "spectral_sharpness",
    "stability_threshold",
    "steepest",
    "step_ratio",
    "step_stability",
    "top_eigenvalues",
    "trace",
    "tracked",
    "usual_sizes",
    "weights",
]
