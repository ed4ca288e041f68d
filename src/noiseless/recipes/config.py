"""The config of a run: its recipe (everything that changes results) and its settings (what should not change them).

Both are frozen values. Their fields are the flags of `noiseless train`; the string under a field is its help text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from noiseless.plain import OtherFieldsError, typed
from noiseless.recipes.checks import at_least, printable_text
from noiseless.recipes.flags import flag_values
from noiseless.recipes.recipe import Recipe

LATER: Mapping[str, Mapping[str, Any]] = {
    "model": {"freeze": [], "portable": False},
    "objective": {"loss_options": "", "draw": "examples"},
    "transforms": {"transform": [], "transform_options": []},
    "optimizer": {"lr_factors": ""},
}
"""part of a recipe -> fields that were added after runs had been written without them, with their value there"""
MOST_THREADS = 1024
"""largest number of CPU threads: far more of them end the process"""


@dataclass(frozen=True)
class Settings:
    """How a run is carried out: place, speed and record."""

    run_dir: str | None = None
    """directory of the run, new or empty; None: runs/NAME-DATA-MODEL-seedSEED, with a number added where that exists"""
    data_dir: str | None = None
    """directory of downloaded and packed data sets; None: the one that the environment variable NOISELESS_DATA names,
    else ~/.cache/noiseless/data"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""
    threads: int | None = None
    """CPU threads; None: one for each core. The last bits of the results depend on it, except with
    --portable"""
    chunk: int | None = None
    """blocks computed at once; changes only the speed and (except with --portable) the last bits; None: chosen by size
    of block, image and model"""
    compile: Literal["auto", "on", "off"] = "auto"
    """compile the model's code; changes only the speed and the last bits; auto: on CPUs, where the run is long enough
    to save more time than compiling takes"""
    evaluate_every: int | None = None
    """steps between evaluations on the test images; None: ten evaluations in a run. The last step always has one"""
    checkpoint_seconds: float = 60.0
    """seconds between checkpoints; 0: a checkpoint after every step"""
    keep: int = 2
    """number of newest checkpoints to keep"""
    keep_every: int | None = None
    """steps between additional checkpoints that are never removed, for later analyses; None: no additional ones"""
    snapshot_seconds: float = 60.0
    """seconds between snapshots of an unfinished sweep, which each worker writes"""
    sharpness_every: int | None = None
    """steps between computations of the largest Hessian eigenvalues of the training loss, which cost passes over the
    data; None: never"""
    sharpness_count: int = 1
    """number of eigenvalues that --sharpness-every computes"""
    noise_every: int | None = None
    """steps between measurements of the gradient noise, each a little more than one pass over the data; None: never"""
    layers_every: int | None = None
    """steps between records of each parameter tensor's norm, distance from the start, gradient and update; None:
    never"""
    check_every: int = 100
    """steps between checks that all workers have the same parameters"""
    tensorboard: bool = False
    """also write the rows to TensorBoard files in the run's directory"""
    wandb: str | None = None
    """Weights & Biases project to which the rows are sent as well; None: they are not sent"""

    def check(self) -> None:
        """Refuses values that no run can have.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        at_least("threads", self.threads, 1, MOST_THREADS)
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
class FromPython:
    """Objects from which `noiseless.fit` made a run. A file cannot name them, so these texts only describe them."""

    model: str
    loss: str
    data: str
    optimizer: str
    schedule: str


@dataclass(frozen=True)
class Config:
    """The config of a run."""

    recipe: Recipe = field(default_factory=Recipe)
    settings: Settings = field(default_factory=Settings)
    python: FromPython | None = None
    """what came from Python, in place of what the recipe says of it; None: nothing, the recipe has it all"""

    def check(self) -> None:
        """Refuses values that no run can have; sizes that depend on the data are checked after the data are loaded.

        Raises:
            ValueError: naming flag, value and what it must be.
        """
        self.check_texts()
        self.recipe.check()
        self.settings.check()

    def check_texts(self) -> None:
        """Refuses texts that would control a terminal, or pretend to be several lines of output.

        Raises:
            ValueError: naming flag and value.
        """
        texts = asdict(self.python) if self.python else {}
        for flag, value in (flag_values(self.recipe) | asdict(self.settings) | texts).items():
            printable_text(flag.replace("_", "-"), value)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `config.json`; without `python` where nothing came from there."""
        return {name: value for name, value in asdict(self).items() if name != "python" or value is not None}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Config:
        """The config with the values that `as_json` gave.

        Returns:
            The config.

        Raises:
            ValueError: if a part or a field is missing or unknown, or has a value of another type.
        """
        try:
            config: Config = typed(Config, {"python": None, **_with_later(values)}, "")
        except OtherFieldsError as error:
            raise ValueError(f"it was written by another version of noiseless ({error})") from None
        config.check_texts()
        return config


def _with_later(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config, with the fields that were added after it was written."""
    recipe = values.get("recipe")
    if not isinstance(recipe, dict):
        return dict(values)
    parts = {name: {**later, **recipe[name]} for name, later in LATER.items() if isinstance(recipe.get(name), dict)}
    return {**values, "recipe": recipe | parts}
