"""Questions to an objective: how flat it is, what it looks like around a point. Nothing here moves the parameters."""

from noiseless.analysis.directions import Normalised, Principal, difference, normalise, principal, random_direction
from noiseless.analysis.flatness import Flatness, average_flatness
from noiseless.analysis.landscape import BatchNorm, Grid, Point, Surface, grid

__all__ = [
    "BatchNorm",
    "Flatness",
    "Grid",
    "Normalised",
    "Point",
    "Principal",
    "Surface",
    "average_flatness",
    "difference",
    "grid",
    "normalise",
    "principal",
    "random_direction",
]
