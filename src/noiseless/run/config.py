"""What a run is: a recipe (all that changes results) and settings (what should not).

Both are frozen values; their fields are the flags of `noiseless train`, and the string under a field is its help.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal


@dataclass(frozen=True)
class Recipe:
    """The mathematics of a run: which function is minimised, and how."""

    name: str = "fb-regularized"
    """name in the record and of the run directory"""

    # what is learned
    data: str = "digits"
    """data set: digits, or npz:FILE with x_train, y_train, x_test, y_test"""
    model: str = "resnet8"
    """model: resnet8, 18, 20, 32, 34, 50, 56, 101, 110, 152"""
    norm: Literal["batch", "group", "none"] = "batch"
    """normalisation layers of the model"""
    init: str | None = None
    """safetensors file with initial parameters and buffers; none: drawn from the seed"""
    seed: int = 0
    """keys every random draw"""
    mean: tuple[float, ...] | None = None
    """pixel mean a channel in units of 255; none: of the training images"""
    std: tuple[float, ...] | None = None
    """pixel standard deviation a channel in units of 255; none: of the training images"""
    dtype: Literal["float32", "float64"] = "float32"
    """of parameters, activations and gradients"""

    # the sequence of objectives
    regime: Literal["full-batch", "stochastic", "switch"] = "full-batch"
    """full-batch: one update a step; stochastic: one update a block; switch: the second, then the first"""
    switch: int = 0
    """first step with the full batch, in the regime switch"""
    steps: int = 3000
    """steps of the run; a stochastic step is one pass over the data, with many updates"""
    block: int = 128
    """examples a block: for the penalty, and for an update of the stochastic regime"""
    norm_block: int | None = None
    """examples that batch norm normalises together, divides the block; none: the block"""
    shuffle: bool = False
    """blocks are cut anew from a shuffled order at each step (the stochastic regime always does)"""
    replacement: bool = False
    """the stochastic regime draws examples with replacement"""
    augment: Literal["none", "crop-flip"] = "crop-flip"
    """random crop and mirror image, or none"""
    padding: int = 4
    """pixels of zeros around the image that is cropped"""
    flip: float = 0.5
    """probability of the mirror image"""
    copies: int = 0
    """0: augmentations are drawn anew at each step; N: a fixed set of N copies; a stochastic step visits one"""
    statistics: Literal["average", "ema"] = "average"
    """batch norm's running statistics: average over the sweep, or exponential; stochastic updates use the second"""

    # what is added to the loss, and done to its gradient
    penalty: float = 0.0
    """strength of the penalty on the block gradients' norms: adds (lr / 8) * penalty * mean ||g_b||^2"""
    full_penalty: float = 0.0
    """strength of the penalty on the full gradient's norm"""
    penalty_method: Literal["forward", "central", "exact"] = "forward"
    """Hessian products by forward or central differences, or exact by double backward"""
    penalty_eps: float = 1e-2
    """length of the finite-difference probe"""
    block_clip: float | None = None
    """L2 norm to which each block's gradient is clipped; none: not"""
    norm_bias: float = 0.0
    """strength of the pull of the parameters' norm towards norm-target"""
    norm_target: float = 0.0
    """target of the norm bias"""
    norm_bias_type: Literal["l1", "l2"] = "l2"
    """norm of the norm bias"""
    clip: float | None = None
    """norm to which the full gradient is clipped; none: not"""
    clip_type: Literal["l2", "max"] = "l2"
    """norm of the clip: Euclidean, or the largest element"""
    additive_noise: float = 0.0
    """standard deviation of noise added to each element of the gradient"""
    multiplicative_noise: float = 0.0
    """standard deviation of noise that multiplies each element of the gradient"""

    # how it moves
    optimizer: str = "SGD"
    """any optimizer of torch.optim"""
    lr: float = 0.1
    """peak learning rate"""
    momentum: float | None = 0.9
    """momentum, for optimizers that take it"""
    nesterov: bool | None = True
    """Nesterov momentum, for optimizers that take it"""
    weight_decay: float | None = 5e-4
    """weight decay on all parameters, for optimizers that take it"""
    optimizer_options: str = ""
    """further arguments of the optimizer, as in a call: NAME=VALUE,NAME=VALUE"""
    schedule: Literal["cosine", "cosine-floor", "multi-step", "exponential", "constant"] = "cosine"
    """learning rate after the warm-up; cosine-floor ends at lr / 25, multi-step falls to a tenth at 3/8, 5/8, 7/8"""
    warmup: int = 0
    """steps of linear warm-up from 0"""
    horizon: int | None = None
    """steps in which the cosine falls to 0 or its floor; none: the run's steps"""
    decay: float = 0.99
    """factor a step of the exponential schedule"""


@dataclass(frozen=True)
class Settings:
    """How a run is carried out: place, speed and record."""

    run_dir: str | None = None
    """directory of the run, new or empty; none: runs/NAME-DATA-MODEL-seedSEED, numbered where it exists"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    threads: int | None = None
    """CPU threads; none: one for each core. The bits of a result depend on it"""
    chunk: int | None = None
    """blocks computed at once, for speed only (it changes the last bits); none: chosen by block and model size"""
    evaluate_every: int | None = None
    """steps between evaluations on the test images; none: ten in a run. The last step always has one"""
    checkpoint_seconds: float = 60.0
    """time between checkpoints; 0: after every step"""
    keep: int = 2
    """checkpoints that are kept"""
    snapshot_seconds: float = 60.0
    """time between snapshots of a sweep that is under way, by each worker"""
    check_every: int = 100
    """steps between comparisons of the workers' parameters"""


@dataclass(frozen=True)
class Config:
    """A run."""

    recipe: Recipe = field(default_factory=Recipe)
    settings: Settings = field(default_factory=Settings)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `config.json`."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Config:
        """The config that `as_json` has described.

        Returns:
            The config.

        Raises:
            ValueError: if a part or a field is missing or unknown.
        """
        parts: dict[str, Any] = {}
        for name, kind in (("recipe", Recipe), ("settings", Settings)):
            found = values.get(name)
            known = {f.name for f in fields(kind)}
            wrong = known ^ set(found) if isinstance(found, dict) else {name}
            if wrong:
                raise ValueError(
                    f"this config was made by another version: {', '.join(sorted(wrong))} missing or unknown"
                )
            given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values[name].items()}
            parts[name] = kind(**given)
        return Config(**parts)


def check(recipe: Recipe, settings: Settings) -> None:
    """Refuses numbers that no run can have; sizes that depend on the data are checked where it is known.

    Raises:
        ValueError: naming flag, value and what it must be.
    """
    for name, low in (
        ("steps", 1),
        ("block", 1),
        ("warmup", 0),
        ("padding", 0),
        ("copies", 0),
        ("switch", 0),
        ("seed", 0),
    ):
        _at_least(name, getattr(recipe, name), low)
    for name in ("penalty", "full_penalty", "additive_noise", "multiplicative_noise", "norm_bias", "norm_target"):
        _at_least(name, getattr(recipe, name), 0)
    _positive("lr", recipe.lr)
    for name in ("norm_block", "horizon", "block_clip", "clip", "penalty_eps", "decay"):
        if (value := getattr(recipe, name)) is not None:
            _positive(name, value)
    for name in ("momentum", "weight_decay"):
        if (value := getattr(recipe, name)) is not None:
            _at_least(name, value, 0)
    if not all(math.isfinite(value) for value in recipe.mean or ()):
        raise ValueError(f"--mean must be finite, not {' '.join(map(str, recipe.mean or ()))}")
    if (recipe.regime == "switch") != (recipe.switch > 0):
        raise ValueError("--switch N and --regime switch belong together: N is the first step with the full batch")
    if recipe.replacement and recipe.regime == "full-batch":
        raise ValueError("--replacement draws the examples of stochastic updates; the full batch holds each one once")
    if not 0 <= recipe.flip <= 1:
        raise ValueError(f"--flip must be a probability between 0 and 1, not {recipe.flip}")
    if recipe.seed >= 2**64:
        raise ValueError(f"--seed must be below 2**64, not {recipe.seed}")
    for name, low in (
        ("threads", 1),
        ("evaluate_every", 1),
        ("chunk", 1),
        ("keep", 1),
        ("check_every", 1),
        ("checkpoint_seconds", 0),
        ("snapshot_seconds", 0),
    ):
        if (value := getattr(settings, name)) is not None:
            _at_least(name, value, low)


def _at_least(name: str, value: float, low: float) -> None:
    if not low <= value < float("inf"):
        raise ValueError(f"--{name.replace('_', '-')} must be a finite number of at least {low}, not {value}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"--{name.replace('_', '-')} must be a positive number, not {value}")
