"""Arms of a dial: one recipe with the full batch, and with each source of gradient noise switched on alone.

All arms have the same number of updates, and the same learning rate at each update. The full-batch arm has no noise:
one gradient over all examples in fixed blocks, on images that are not augmented. Each other arm adds one source:

- sampling: mini-batches, drawn as fixed norm blocks, so that batch norm normalises the same examples together;
- norm blocks: the full batch, cut anew into norm blocks at each update;
- augmentation: the full batch, augmented anew at each update. It also changes which function is minimised, and so
  `fixed copies`, a set of augmented copies that stays, is the control without noise;
- rounding: the full batch with convolutions and matrix products in bfloat16;
- all: mini-batches of examples, augmented anew, which is ordinary SGD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.study.reproduce import Job, plan

Source = Literal["none", "sampling", "norm blocks", "augmentation", "fixed copies", "rounding", "all"]
DIVISORS = (2, 4, 8, 16, 32)
"""numbers of mini-batches that divide the training images by default, where the schedule allows it"""
QUARTERS = 4
"""smallest number of steps of an arm, so that it has states at a quarter, half and three quarters of its updates"""
BLOCKWISE = {"penalty": 0.0, "full_penalty": 0.0, "block_clip": None, "max_up": 1}
"""flags whose effect depends on the block, and their values without effect: a block is also the mini-batch"""


@dataclass(frozen=True)
class Arm:
    """A recipe of the dial."""

    source: Source
    batch: int | None
    """examples of a mini-batch; None: the full batch"""
    updates_a_step: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Source and size, as `sampling, 256`; the arm without noise is `full batch`."""
        if self.source == "none":
            return "full batch"
        return self.source if self.batch is None else f"{self.source}, {self.batch}"


def arms(
    recipe: Recipe, images: int, batches: Sequence[int] = (), copies: int = 4, batch_norm: bool = True
) -> list[Arm]:
    """The arms of a recipe.

    Args:
        recipe: of the full batch; its steps are the updates of every arm. Its augmentation is that of the arms with
            augmentation, if it has one; its norm block is that of all arms.
        images: N, number of training images.
        batches: sizes of mini-batches; empty: about N / 2, N / 4, ... N / 32, as far as the schedule allows it.
        copies: number of augmented copies of each image in the control `fixed copies`.
        batch_norm: whether the model has batch norm.

    Returns:
        The arms; the first one has no noise.

    Raises:
        ValueError: if the recipe has parts whose effect depends on the block, or no mini-batch fits.
    """
    _refuse(recipe)
    norm_block = min(recipe.objective.norm_block or recipe.objective.block, images)
    quiet = _with(
        recipe, "full", regime="full-batch", switch=0, parts=1, shuffle=False, replacement=False, draw="examples",
        drop_last=False, norm_block=norm_block, block=norm_block, augment="none", policy="none", policy_options="",
        copies=0, first_clean=False, autocast="none", rate_by="update",
    )  # fmt: skip
    sizes = {size: _updates(quiet, images, size) for size in batches or _sizes(quiet, images, norm_block)}
    arms = [Arm("none", None, 1, quiet)]
    for size, updates in sorted(sizes.items(), reverse=True):
        if size % norm_block:
            raise ValueError(
                f"--batches {size} must be a multiple of the {norm_block} examples that batch norm normalises together"
                " (--norm-block)"
            )
        draw = "norm-blocks" if batch_norm else "examples"
        arms.append(Arm("sampling", size, updates, _stochastic(quiet, f"sampling-{size}", size, updates, draw=draw)))
    if batch_norm:
        arms.append(Arm("norm blocks", None, 1, _with(quiet, "norm-blocks", shuffle=True)))
    flags: dict[str, Any] = {}
    if recipe.data.random:
        data = recipe.data
        flags = {"augment": data.augment, "policy": data.policy, "policy_options": data.policy_options}
        arms.append(Arm("augmentation", None, 1, _with(quiet, "augmentation", **flags)))
        arms.append(Arm("fixed copies", None, 1, _with(quiet, f"copies-{copies}", copies=copies, **flags)))
    arms.append(Arm("rounding", None, 1, _with(quiet, "rounding", autocast="bfloat16")))
    smallest = min(sizes)
    arms.append(
        Arm("all", smallest, sizes[smallest], _stochastic(quiet, f"all-{smallest}", smallest, sizes[smallest], **flags))
    )
    return arms


def jobs(arms: Sequence[Arm], seeds: int, directory: Path) -> dict[Arm, list[Job]]:
    """The runs of each arm, by seed, with checkpoints at each quarter of the updates."""
    planned = plan([arm.recipe for arm in arms], seeds, directory)
    by_arm = {arm: planned[k * seeds : (k + 1) * seeds] for k, arm in enumerate(arms)}
    return {
        arm: [Job(job.recipe, job.path, keep_every=max(1, job.recipe.schedule.steps // QUARTERS)) for job in arm_jobs]
        for arm, arm_jobs in by_arm.items()
    }


def states(job: Job) -> list[int]:
    """Steps after a quarter, half and three quarters of a run's updates, of which its checkpoints are kept."""
    every = job.keep_every or 1
    return [every, 2 * every, 3 * every]


def _with(recipe: Recipe, name: str, **flags: Any) -> Recipe:
    return with_flags(recipe, name=f"dial-{name}", **flags)


def _stochastic(quiet: Recipe, name: str, size: int, updates: int, **flags: Any) -> Recipe:
    """The recipe with mini-batches and the same number of updates."""
    schedule = quiet.schedule
    return _with(
        quiet, name, regime="stochastic", block=size, shuffle=True, steps=schedule.steps // updates,
        warmup=schedule.warmup // updates, horizon=(schedule.horizon or schedule.steps) // updates,
        decay=schedule.decay**updates if schedule.name == "exponential" else schedule.decay, **flags,
    )  # fmt: skip


def _sizes(quiet: Recipe, images: int, unit: int) -> list[int]:
    """Mini-batch sizes, in whole norm blocks, whose updates fit the schedule."""
    sizes = {-(-images // (divisor * unit)) * unit for divisor in DIVISORS if images >= divisor * unit}
    fitting = [size for size in sizes if not _misfit(quiet, images, size)]
    if not fitting:
        schedule = quiet.schedule
        raise ValueError(
            f"no mini-batch divides the updates evenly: with N / 2 images a step has 2 updates, so --steps"
            f" {schedule.steps}, --warmup {schedule.warmup} and --horizon {schedule.horizon or schedule.steps} must be"
            f" even, and --steps at least {2 * QUARTERS}; multiples of 32 give more sizes"
        )
    return fitting


def _updates(quiet: Recipe, images: int, size: int) -> int:
    """Updates in a pass with mini-batches of a size; raises where they do not fit the schedule."""
    if not 0 < size < images:
        raise ValueError(f"--batches {size} must be at least 1 and smaller than the {images} training images")
    if problem := _misfit(quiet, images, size):
        raise ValueError(problem)
    return -(-images // size)


def _misfit(quiet: Recipe, images: int, size: int) -> str | None:
    """Why the updates of mini-batches of a size do not fit the schedule; None if they do."""
    updates, schedule = -(-images // size), quiet.schedule
    durations = {"steps": schedule.steps, "warmup": schedule.warmup, "horizon": schedule.horizon or schedule.steps}
    for flag, value in durations.items():
        if value % updates:
            return (
                f"mini-batches of {size} make {updates} updates in a pass over the {images} training images, which do"
                f" not divide --{flag} {value}: give a multiple, or other --batches"
            )
    if schedule.steps < QUARTERS * updates:
        return (
            f"mini-batches of {size} make {updates} updates in a pass, so --steps {schedule.steps} are fewer than"
            f" {QUARTERS} passes: give --steps {QUARTERS * updates} or more, or larger --batches"
        )
    return None


def _refuse(recipe: Recipe) -> None:
    """Raises if the recipe has a part whose effect depends on the block, or rates that other arms cannot have."""
    values = {"penalty": recipe.objective.penalty, "full_penalty": recipe.objective.full_penalty,
              "block_clip": recipe.transforms.block_clip, "max_up": recipe.objective.max_up}  # fmt: skip
    for flag, value in values.items():
        if value != BLOCKWISE[flag]:
            raise ValueError(
                f"--{flag.replace('_', '-')} {value:g} acts on blocks, which are the mini-batches in some arms of a"
                f" dial, so the arms would differ in more than noise: give a recipe without it"
            )
    schedule = recipe.schedule
    if schedule.warmup and schedule.name.startswith("cosine"):
        raise ValueError(
            f"--warmup {schedule.warmup}: the cosine begins one step after a warm-up, and a step is a pass with several"
            " updates in some arms of a dial, so their learning rates would differ: give --warmup 0"
        )
    if recipe.compat == "published":
        raise ValueError("--compat published counts steps, which are passes in some arms of a dial: leave it out")
