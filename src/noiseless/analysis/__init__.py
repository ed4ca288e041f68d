"""Measurements of an objective at its module's present parameters: spectrum, noise, landscape, flatness, norms.

Parameters and modes that a measurement changes are restored at its end.
"""

from noiseless.analysis.batchsharpness import BatchSharpness, batch_sharpness
from noiseless.analysis.centralflow import CentralFlow
from noiseless.analysis.connectivity import (
    Barrier,
    Divergence,
    LinearPath,
    barrier,
    divergence,
    flip_bit,
    linear_path,
)
from noiseless.analysis.curvature import Curvature, GaussNewton, as_torch_function, curvature_matrix
from noiseless.analysis.decompose import OnePass, compare_orders, drawn_order
from noiseless.analysis.density import Density, Trace, density, trace
from noiseless.analysis.diagonal import Diagonal, LayerTrace, diagonal
from noiseless.analysis.directions import (
    Normalised,
    PrincipalDirections,
    difference,
    normalise,
    principal_directions,
    random_direction,
    scaling_text,
)
from noiseless.analysis.draws import gradient_draws
from noiseless.analysis.flatness import Flatness, average_flatness
from noiseless.analysis.flow import FlowPoint, FlowState, FlowStoppedError, StableFlow
from noiseless.analysis.flowrule import FlowRule, flow_rule
from noiseless.analysis.kronecker import KroneckerFactors, kronecker_factors
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
from noiseless.analysis.parts import Part, Restricted, layer_parts, matching_part
from noiseless.analysis.sharpening import Sharpening, eigenvalue_gradient, eigenvalue_gradient_passes, sharpening
from noiseless.analysis.spectrum import Eigenpairs, TopEigenvalues, top_eigenvalues
from noiseless.analysis.stability import StepStability, preconditioned, stability_threshold, step_stability
from noiseless.analysis.steepest import SpectralSharpness, spectral_sharpness, steepest
from noiseless.analysis.tracking import Catapult, Crossing, Tracked, catapults, crossings, step_ratio, tracked
from noiseless.analysis.weights import Weights, layers_of, weights

__all__ = [
    "Barrier",
    "BatchNorm",
    "BatchSharpness",
    "Catapult",
    "CentralFlow",
    "Crossing",
    "Curvature",
    "Density",
    "Diagonal",
    "Divergence",
    "Eigenpairs",
    "Flatness",
    "FlowPoint",
    "FlowRule",
    "FlowState",
    "FlowStoppedError",
    "GaussNewton",
    "GradientNoise",
    "Hessian",
    "KroneckerFactors",
    "LandscapePoint",
    "LayerTrace",
    "LinearPath",
    "LossLandscape",
    "LossSurface",
    "Moments",
    "Normalised",
    "OnePass",
    "Operator",
    "Part",
    "Preconditioned",
    "PrincipalDirections",
    "Restricted",
    "Sharpening",
    "SpectralSharpness",
    "StableFlow",
    "StepStability",
    "TopEigenvalues",
    "Trace",
    "Tracked",
    "Weights",
    "as_linear_operator",
    "as_torch_function",
    "average_flatness",
    "barrier",
    "batch_sharpness",
    "catapults",
    "check_blocks",
    "compare_orders",
    "crossings",
    "curvature_matrix",
    "density",
    "diagonal",
    "difference",
    "divergence",
    "drawn_order",
    "eigenvalue_gradient",
    "eigenvalue_gradient_passes",
    "flip_bit",
    "flow_rule",
    "gradient_draws",
    "gradient_noise",
    "gradient_noise_scale",
    "kronecker_factors",
    "layer_parts",
    "layers_of",
    "linear_path",
    "loss_landscape",
    "matching_part",
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
