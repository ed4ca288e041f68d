"""What a state of the parameters is like: questions to an objective, which leave it as it is."""

from noiseless.analysis.noise import (
    GradientNoise,
    Moments,
    check_blocks,
    check_finite,
    gradient_noise,
    noise_of,
    noise_passes,
)
from noiseless.analysis.weights import Weights, layers_of, weights

__all__ = [
    "GradientNoise",
    "Moments",
    "Weights",
    "check_blocks",
    "check_finite",
    "gradient_noise",
    "layers_of",
    "noise_of",
    "noise_passes",
    "weights",
]
