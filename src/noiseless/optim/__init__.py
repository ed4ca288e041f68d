"""How to move: transforms of the gradient, schedules, and one step of an optimizer."""

from noiseless.optim.optimizers import (
    line_search,
    make_optimizer,
    optimizer_arguments,
    optimizer_names,
    parse_options,
)
from noiseless.optim.step import Step, refuse_line_search, take_step
from noiseless.optim.transforms import (
    Transform,
    additive_noise,
    chain,
    clip_norm,
    multiplicative_noise,
    norm_bias,
)

__all__ = [
    "Step",
    "Transform",
    "additive_noise",
    "chain",
    "clip_norm",
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
