"""A run: its recipe (all that changes results) and its settings (what should not).

Both are frozen values; their fields are the flags of `noiseless train`, and the string under a field is its help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_type_hints

from noiseless.recipes.checks import at_least
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

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        at_least("threads", self.threads, 1)
        at_least("chunk", self.chunk, 1)
        at_least("evaluate-every", self.evaluate_every, 1)
        at_least("checkpoint-seconds", self.checkpoint_seconds, 0)
        at_least("keep", self.keep, 1)
        at_least("keep-every", self.keep_every, 1)
        at_least("snapshot-seconds", self.snapshot_seconds, 0)
        at_least("sharpness-every", self.sharpness_every, 1)
        at_least("sharpness-count", self.sharpness_count, 1)
        at_least("noise-every", self.noise_every, 1)
        at_least("layers-every", self.layers_every, 1)
        at_least("check-every", self.check_every, 1)


@dataclass(frozen=True)
class Config:
    """A run."""

    recipe: Recipe = field(default_factory=Recipe)
    settings: Settings = field(default_factory=Settings)

    def check(self) -> None:
        """Refuses values that no run can have; sizes that depend on the data are checked where the data are known.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        self.recipe.check()
        self.settings.check()

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
        for name in ("recipe", "settings"):
            if not isinstance(values.get(name), dict):
                raise ValueError(f"it has no part {name!r}, so it is no config of a run")
        config: Config = _from_json(Config, values, "")
        return config


def _from_json(kind: type, values: Any, name: str) -> Any:
    """A dataclass from plain values, with the dataclasses in it; `name` is that of the part, for errors."""
    hints = get_type_hints(kind)
    given = values if isinstance(values, dict) else {}
    lacks = [f.name for f in fields(kind) if f.name not in given]
    strange = sorted(set(given) - set(hints))
    told = [f"lacks {_few(lacks)}"] if lacks else []
    told += [f"has {_few(strange)}, which is not known"] if strange else []
    if told:
        raise ValueError(
            f"it was written by another version of noiseless ({name} {' and '.join(told)}): use that version, which"
            " environment.json beside it names, or start a new run"
        )
    read = {
        field: _from_json(hints[field], value, field)
        if is_dataclass(hints[field])
        else (tuple(value) if isinstance(value, list) else value)
        for field, value in given.items()
    }
    return kind(**read)


def _few(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
