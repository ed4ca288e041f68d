"""Questions to an objective: what a state of the parameters is like. Whatever is moved to be asked is put back."""

from noiseless.analysis.density import Density, Trace, density, trace
from noiseless.analysis.directions import Normalised, Principal, difference, normalise, principal, random_direction
from noiseless.analysis.edge import edge, preconditioned
from noiseless.analysis.flatness import Flatness, average_flatness
from noiseless.analysis.landscape import BatchNorm, Grid, Point, Surface, grid
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
    "BatchNorm",
    "Density",
    "Eigenpairs",
    "Ends",
    "Flatness",
    "GradientNoise",
    "Grid",
    "Hessian",
    "Moments",
    "Normalised",
    "Operator",
    "Point",
    "Preconditioned",
    "Principal",
    "Surface",
    "Trace",
    "Weights",
    "as_linear_operator",
    "average_flatness",
    "check_blocks",
    "check_finite",
    "density",
    "difference",
    "edge",
    "ends",
    "gradient_noise",
    "grid",
    "layers_of",
    "noise_of",
    "noise_passes",
    "normalise",
    "preconditioned",
    "principal",
    "random_direction",
    "trace",
    "weights",
]
