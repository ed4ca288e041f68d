"""How to move: transforms of the gradient, schedules, and one step of an optimizer."""

from noiseless.optim.backtracking import ArmijoSearch, NonMonotoneSearch, RestartingSearch
from noiseless.optim.fista import FISTA
from noiseless.optim.layerwise import adaptive_clip, larc, lars
from noiseless.optim.lbfgs import DampedLBFGS
from noiseless.optim.linesearch import Line, LinePoint, LineSearch, SearchState, SearchStep
from noiseless.optim.muon import Muon
from noiseless.optim.optimizers import line_search, make_optimizer, optimizer_arguments, parse_options
from noiseless.optim.registry import OPTIMIZERS, OptimizerEntry, entry_of, optimizer_entry, optimizer_names
from noiseless.optim.scalarrmsprop import ScalarRMSprop
from noiseless.optim.searched import Outcome, Searched
from noiseless.optim.searches import LINE_SEARCHES, line_search_options, make_line_search
from noiseless.optim.step import Step, refuse_line_search, take_step
from noiseless.optim.strongwolfe import StrongWolfeSearch
from noiseless.optim.transforms import (
    Linear,
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
    "LINE_SEARCHES",
    "OPTIMIZERS",
    "ArmijoSearch",
    "DampedLBFGS",
    "Line",
    "LinePoint",
    "LineSearch",
    "Linear",
    "Muon",
    "NonMonotoneSearch",
    "OptimizerEntry",
    "Outcome",
    "RestartingSearch",
    "ScalarRMSprop",
    "SearchState",
    "SearchStep",
    "Searched",
    "Step",
    "StrongWolfeSearch",
    "Transform",
    "adaptive_clip",
    "additive_noise",
    "aggregate",
    "chain",
    "clip_norm",
    "entry_of",
    "larc",
    "lars",
    "line_search",
    "line_search_options",
    "make_line_search",
    "make_optimizer",
    "multiplicative_noise",
    "norm_bias",
    "optimizer_arguments",
    "optimizer_entry",
    "optimizer_names",
    "parse_options",
    "refuse_line_search",
    "take_step",
]
