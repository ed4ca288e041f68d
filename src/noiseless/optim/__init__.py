"""How to move: transforms of the gradient, schedules, and one step of an optimizer."""

from noiseless.optim.fista import FISTA
from noiseless.optim.layerwise import adaptive_clip, larc, lars
from noiseless.optim.lbfgs import DampedLBFGS
from noiseless.optim.muon import Muon
from noiseless.optim.optimizers import (
    line_search,
    make_optimizer,
    optimizer_arguments,
    optimizer_names,
    parse_options,
)
from noiseless.optim.searched import Outcome, Searched
from noiseless.optim.step import Step, refuse_line_search, take_step
from noiseless.optim.transforms import (
    Transform,
    additive_noise,
    aggregate,
    chain,
    clip_norm,
    multiplicative_noise,
    norm_bias,
)

__all__ = [
    "FISTA",
    "DampedLBFGS",
    "Muon",
    "Outcome",
    "Searched",
    "Step",
    "Transform",
    "adaptive_clip",
    "additive_noise",
    "aggregate",
    "chain",
    "clip_norm",
    "larc",
    "lars",
    "line_search",
    "make_optimizer",
    "multiplicative_noise",
    "norm_bias",
    "optimizer_arguments",
    "optimizer_names",
    "parse_options",
    "refuse_line_search",
    "take_step",
]
