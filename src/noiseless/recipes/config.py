"""A run: its recipe (all that changes results) and its settings (what should not).

Both are frozen values; their fields are the flags of `noiseless train`, and the string under a field is its help.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from noiseless.recipes.recipe import Recipe


@dataclass(frozen=True)
class Settings:
    """How a run is carried out: place, speed and record."""

    run_dir: str | None = None
    """directory of the run, new or empty; none: runs/NAME-DATA-MODEL-seedSEED, numbered where it exists"""
    data_dir: str | None = None
    """directory of downloaded and packed data sets; none: that of NOISELESS_DATA, or ~/.cache/noiseless/data"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    threads: int | None = None
    """CPU threads; none: one for each core. The bits of a result depend on it"""
    chunk: int | None = None
    """blocks computed at once, for speed only (it changes the last bits); none: by size of block, image and model"""
    compile: Literal["auto", "on", "off"] = "auto"
    """compiled code, for speed only (it changes the last bits); auto: where the run is long enough to earn the time"""
    evaluate_every: int | None = None
    """steps between evaluations on the test images; none: ten in a run. The last step always has one"""
    checkpoint_seconds: float = 60.0
    """time between checkpoints; 0: after every step"""
    keep: int = 2
    """newest checkpoints that are kept"""
    keep_every: int | None = None
    """steps between checkpoints that are written and kept for good, for analyses of the way; none: no others"""
    snapshot_seconds: float = 60.0
    """time between snapshots of a sweep that is under way, by each worker"""
    sharpness_every: int | None = None
    """steps between searches for the training loss' largest Hessian eigenvalues; none: never. They cost passes"""
    sharpness_count: int = 1
    """eigenvalues that are sought"""
    noise_every: int | None = None
    """steps between measurements of the gradient noise, of a little more than a pass each; none: never"""
    layers_every: int | None = None
    """steps between records of each parameter tensor's norm, way from the start, gradient and update; none: never"""
    check_every: int = 100
    """steps between comparisons of the workers' parameters"""
    tensorboard: bool = False
    """the rows go to TensorBoard as well, in the run's directory"""
    wandb: str | None = None
    """project of Weights & Biases to which the rows go as well; none: they do not"""


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
            ValueError: if a part or a field is missing, or one is unknown.
        """
        parts: dict[str, Any] = {}
        for name, kind in (("recipe", Recipe), ("settings", Settings)):
            found = values.get(name)
            if not isinstance(found, dict):
                raise ValueError(f"it has no part {name!r}, so it is no config of a run")
            known = {f.name for f in fields(kind)}
            lacks = sorted(known - set(found))
            strange = sorted(set(found) - known)
            told = [f"lacks {_few(lacks)}"] if lacks else []
            told += [f"has {_few(strange)}, which is not known"] if strange else []
            if told:
                raise ValueError(
                    f"it was written by another version of noiseless ({name} {' and '.join(told)}): use that version,"
                    " which environment.json beside it names, or start a new run"
                )
            given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
            parts[name] = kind(**given)
        return Config(**parts)


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


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
        ("stop_perfect", 0),
        ("seed", 0),
        ("max_up", 1),
        ("parts", 1),
    ):
        _at_least(name, getattr(recipe, name), low)
    for name in (
        "penalty",
        "full_penalty",
        "additive_noise",
        "multiplicative_noise",
        "norm_bias",
        "norm_target",
        "sam",
    ):
        _at_least(name, getattr(recipe, name), 0)
    _positive("lr", recipe.lr)
    for name in (
        "norm_block",
        "horizon",
        "block_clip",
        "clip",
        "agc",
        "trust",
        "penalty_eps",
        "decay",
        "pixels",
        "images",
    ):
        if (value := getattr(recipe, name)) is not None:
            _positive(name, value)
    for name in ("momentum", "weight_decay"):
        if (value := getattr(recipe, name)) is not None:
            _at_least(name, value, 0)
    if not all(math.isfinite(value) for value in recipe.mean or ()):
        raise ValueError(f"--mean must be finite, not {' '.join(map(str, recipe.mean or ()))}")
    if (recipe.regime == "switch") != (recipe.switch > 0):
        raise ValueError("--switch N and --regime switch belong together: N is the first step with the full batch")
    if recipe.switch >= recipe.steps:
        raise ValueError(f"--switch {recipe.switch} is never reached in --steps {recipe.steps}: give a smaller one")
    if recipe.replacement and recipe.regime == "full-batch":
        raise ValueError("--replacement draws the examples of stochastic updates; the full batch holds each one once")
    if recipe.parts > 1 and (recipe.regime != "full-batch" or recipe.drop_last):
        raise ValueError(
            f"--parts {recipe.parts} divides all examples of the full batch: use --regime full-batch without"
            " --drop-last, or --parts 1"
        )
    if recipe.parts > 1 and (recipe.additive_noise or recipe.multiplicative_noise):
        raise ValueError(
            f"--additive-noise and --multiplicative-noise are drawn once a step, and --parts {recipe.parts} has several"
            " updates: give --parts 1"
        )
    if recipe.rate_by == "update" and recipe.layer_rate == "larc":
        raise ValueError("--layer-rate larc reads the learning rate of the step: use --rate-by step with it")
    _check_augmentation(recipe)
    for name, needed, has in (
        ("norm_target", "--norm-bias", recipe.norm_bias > 0),
        ("norm_bias_type", "--norm-bias", recipe.norm_bias > 0),
        ("clip_type", "--clip", recipe.clip is not None),
        ("trust", "--layer-rate lars or larc", recipe.layer_rate != "none"),
        ("decay", "--schedule exponential", recipe.schedule == "exponential"),
    ):
        if not has and (value := getattr(recipe, name)) != getattr(Recipe, name):
            raise ValueError(f"--{name.replace('_', '-')} {value} does nothing without {needed}")
    if not 0 <= recipe.flip <= 1:
        raise ValueError(f"--flip must be a probability between 0 and 1, not {recipe.flip}")
    for name in ("validation", "label_smoothing", "ema"):
        if not 0 <= (share := getattr(recipe, name)) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be a number of at least 0 and below 1, not {share}")
    if recipe.seed >= 2**64:
        raise ValueError(f"--seed must be below 2**64, not {recipe.seed}")
    for name, low in (
        ("threads", 1),
        ("evaluate_every", 1),
        ("chunk", 1),
        ("keep", 1),
        ("keep_every", 1),
        ("sharpness_every", 1),
        ("sharpness_count", 1),
        ("noise_every", 1),
        ("layers_every", 1),
        ("check_every", 1),
        ("checkpoint_seconds", 0),
        ("snapshot_seconds", 0),
    ):
        if (value := getattr(settings, name)) is not None:
            _at_least(name, value, low)


def _check_augmentation(recipe: Recipe) -> None:
    if recipe.policy_options and recipe.policy == "none":
        raise ValueError(f"--policy-options {recipe.policy_options!r} belong to a --policy, and none is given")
    if recipe.first_clean and not recipe.copies:
        raise ValueError("--first-clean leaves the first of a fixed set's copies as it is; give --copies N with it")
    if recipe.max_up == 1:
        return
    if recipe.copies:
        raise ValueError("--max-up draws anew at each step, and --copies is a fixed set of draws: give one of them")
    crop = recipe.augment == "crop-flip" and (recipe.padding or recipe.flip)
    if not crop and recipe.policy == "none":
        raise ValueError(
            "--max-up compares random draws of an image; give it --augment crop-flip with --padding or --flip, or a"
            " --policy"
        )
    if recipe.block % recipe.max_up:
        raise ValueError(
            f"--block {recipe.block} must be divisible by --max-up {recipe.max_up}: it counts draws, and those of an"
            " image stay in one block"
        )


def _at_least(name: str, value: float, low: float) -> None:
    if not low <= value < float("inf"):
        raise ValueError(f"--{name.replace('_', '-')} must be a finite number of at least {low}, not {value}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"--{name.replace('_', '-')} must be a positive number, not {value}")
