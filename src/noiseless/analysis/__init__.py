"""Questions to an objective: what a state of the parameters is like. Whatever is moved to be asked is put back."""

from noiseless.analysis.density import Density, Trace, density, trace
from noiseless.analysis.edge import edge, preconditioned
from noiseless.analysis.noise import (
    GradientNoise,
    Moments,
    check_blocks,
    check_finite,
    gradient_noise,
    noise_of,
    noise_passes,
)
from noiseless.analysis.operator import Hessian, Operator, Preconditioned, as_linear_operator
from noiseless.analysis.spectrum import Eigenpairs, Ends, ends
from noiseless.analysis.weights import Weights, layers_of, weights

__all__ = [
    "Density",
    "Eigenpairs",
    "Ends",
    "GradientNoise",
    "Hessian",
    "Moments",
    "Operator",
    "Preconditioned",
    "Trace",
    "Weights",
    "as_linear_operator",
    "check_blocks",
    "check_finite",
    "density",
    "edge",
    "ends",
    "gradient_noise",
    "layers_of",
    "noise_of",
    "noise_passes",
    "preconditioned",
    "trace",
    "weights",
]
