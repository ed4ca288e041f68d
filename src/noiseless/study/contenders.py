"""Contenders of a race: recipes with a budget of passes, and the grid of settings with which each is tuned.

A contender is a recipe with as many steps as its budget allows. A tuned contender has a grid: learning rates around a
usual one, a factor `FACTOR` apart, for each of three block sizes. Three weight decays are spread over the grid as in a
Latin square, so that neighbouring rates and sizes have different ones; the paper's rows keep the paper's weight decay.
All grids have the same number of settings. `aggregated` is not tuned: it has one setting for all data sets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from noiseless.errors import UnknownNameError
from noiseless.own import PATTERN
from noiseless.recipes.checks import known_or_code
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import BLOCK_SCALE, LADDER, aggregated, default_form, on_small, sgd
from noiseless.recipes.recipe import Recipe
from noiseless.trust import is_code

if TYPE_CHECKING:
    from noiseless.data import Extent

FACTOR = 2.0
"""ratio of neighbouring learning rates of a grid"""
FULL = "fb-"
"""before the name of an optimizer: in full-batch steps"""
SIZES = {"paper": (32, 64, 128), "small": (32 // BLOCK_SCALE, 64 // BLOCK_SCALE, 128 // BLOCK_SCALE)}
"""block sizes of a grid, by form"""
Group = Literal["mini-batch", "paper", "full-batch", "aggregated"]


@dataclass(frozen=True)
class Contender:
    """An entrant of a race: a recipe, and what its tuning grid varies."""

    recipe: Recipe
    """in the paper form; its learning rate is the middle of the grid"""
    group: Group
    """mini-batch optimizers; rows of the paper; other full-batch optimizers; cyclic mini-batches with memory"""
    size: Literal["block", "norm_block"] | None = "block"
    """field that takes the grid's block sizes: `block` for mini-batches and for the blocks of batch norm and a penalty;
    `norm_block` for batch norm alone; None: there is no grid, and the recipe is used unchanged"""
    decays: tuple[float, ...] = ()
    """weight decays of the grid; empty: that of the recipe"""

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.recipe.name


def _contenders() -> dict[str, Contender]:
    adamw = with_flags(sgd(), name="adamw", optimizer="AdamW", lr=2e-3)
    muon = with_flags(
        sgd(), name="muon", optimizer="Muon", lr=2e-2, momentum=0.95, optimizer_options="inner_lr_ratio=0.1"
    )
    full: Mapping[str, Any] = {"regime": "full-batch", "shuffle": True}
    contenders = [
        Contender(sgd(), "mini-batch", decays=(5e-4, 1.5e-3, 5e-3)),
        Contender(adamw, "mini-batch", decays=(1e-2, 1e-1, 1.0)),
        Contender(muon, "mini-batch", decays=(1e-2, 3e-2, 1e-1)),
        *(Contender(make(), "paper") for make in LADDER.values() if make().objective.regime == "full-batch"),
        Contender(with_flags(adamw, name="fb-adamw", lr=1e-2, **full), "full-batch", "norm_block", (0.1, 0.3, 1.0)),
        Contender(with_flags(muon, name="fb-muon", lr=5e-2, **full), "full-batch", "norm_block", (0.1, 0.3, 1.0)),
        Contender(aggregated(), "aggregated", None),
    ]
    return {contender.name: contender for contender in contenders}


CONTENDERS: Mapping[str, Contender] = _contenders()
"""all contenders by name"""
USUAL = (
    "sgd",
    "adamw",
    "muon",
    "fb",
    "fb-clipped",
    "fb-regularized",
    "fb-practice",
    "fb-adamw",
    "fb-muon",
    "aggregated",
)
"""default contenders of a race. With a budget, fb-longer is the same as fb; with a grid, fb-strong is fb-regularized"""


@dataclass(frozen=True)
class Course:
    """Data, model, loss and augmentation, which are the same for all contenders of a race."""

    data: str
    extent: Extent
    """extent of the data set"""
    pixels: int | None = None
    """size to which images are resized and cropped; None: their size in the data set"""
    model: str | None = None
    """name of the model; None: that of the form"""
    form: Literal["paper", "small"] | None = None
    """None: the usual form for the data set"""
    augment: bool = True
    """True: fresh augmentation at each step; False: none"""
    loss: str = "cross-entropy"
    """name of the loss, or `package.module:name`"""

    @property
    def kind(self) -> str:
        """The form of the recipes: `paper` or `small`."""
        return self.form or default_form(self.data)

    def recipe(self, contender: Contender, budget: int) -> Recipe:
        """Builds a contender's recipe for this course and a budget.

        Warm-up and horizon are scaled with the number of steps; the border of a crop is an eighth of the shorter side
        of an image, at least 1 pixel.

        Args:
            contender: the contender.
            budget: in passes.

        Returns:
            The recipe, with the budget appended to its name.

        Raises:
            ValueError: if a step costs more than the budget.
        """
        from noiseless.run.work import passes_a_step  # not above: it imports torch

        recipe = contender.recipe
        cost = passes_a_step(recipe)
        steps = int(budget / cost)
        if steps < 1:
            raise ValueError(
                f"a step of {contender.name} costs {cost:g} passes, so a budget of {budget} is too small: give larger"
                " --budgets"
            )
        scale = steps / recipe.schedule.steps
        recipe = on_small(recipe, self.data) if self.kind == "small" else with_flags(recipe, data=self.data)
        return with_flags(
            recipe,
            name=f"{contender.name}-{budget}",
            pixels=self.pixels,
            model=self.model or recipe.model.name,
            loss=self.loss,
            label_smoothing=0.0 if is_code(self.loss) else recipe.objective.label_smoothing,
            steps=steps,
            warmup=round(recipe.schedule.warmup * scale),
            horizon=None if recipe.schedule.horizon is None else round(recipe.schedule.horizon * scale),
            augment="crop-flip" if self.augment else "none",
            padding=max(1, min(self.extent.shape[1:]) // 8),
        )

    def grid(self, contender: Contender, budget: int, rates: int) -> list[Recipe]:
        """Builds the settings with which a contender is tuned.

        The learning rates are `m FACTOR**k` with the recipe's rate m and k from `-((rates - 1) // 2)` on. Rate i with
        size j has the weight decay number `(i + j) mod 3`, or the one weight decay that there is.

        Args:
            contender: the contender.
            budget: in passes.
            rates: number of learning rates.

        Returns:
            Recipes by size, then by rising rate; for a contender without a grid, its recipe alone.
        """
        recipe = self.recipe(contender, budget)
        if contender.size is None:
            return [recipe]
        lrs = [recipe.optimizer.lr * FACTOR ** (k - (rates - 1) // 2) for k in range(rates)]
        decays = contender.decays or (recipe.optimizer.weight_decay,)
        return [
            _sized(with_flags(recipe, lr=lr, weight_decay=decays[(i + j) % len(decays)]), contender.size, size)
            for j, size in enumerate(SIZES[self.kind])
            for i, lr in enumerate(lrs)
        ]


def _sized(recipe: Recipe, field: str, size: int) -> Recipe:
    """The recipe with a size of the grid in a field. A block becomes at least as large as its norm block."""
    if field == "block":
        return with_flags(recipe, block=size)
    return with_flags(recipe, norm_block=size, block=max(size, recipe.objective.block))


def code(text: str) -> str:
    """The class in the name of a contender, `package.module:Class@RATE`, with or without `fb-` before it."""
    return text.removeprefix(FULL).partition("@")[0]


def own(text: str) -> Contender:
    """A contender with an optimizer of the user's own, in mini-batches, or with `fb-` before it in full-batch steps.

    Args:
        text: `package.module:Class@RATE`, with the learning rate in the middle of the grid. Weight decay and momentum
            are those of the row sgd, where the class has such arguments.

    Returns:
        The contender, which is called as the class, with `fb-` before it for full-batch steps.

    Raises:
        ValueError: if the rate is missing, or the name is none.
    """
    name, _, rate = text.partition("@")
    name = code(name)
    known_or_code("optimizer", name, ())
    if not re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", rate) or not 0 < float(rate) < math.inf:
        raise ValueError(
            f"--contenders {text} needs a positive learning rate, around which others are tried: {name}@0.001"
        )
    full = text.startswith(FULL)
    recipe = with_flags(sgd(), name=f"{FULL if full else ''}{name.rpartition(':')[2]}", optimizer=name, lr=float(rate))
    if not full:
        return Contender(recipe, "mini-batch")
    return Contender(with_flags(recipe, regime="full-batch", shuffle=True), "full-batch", "norm_block")


def select(names: Sequence[str]) -> list[Contender]:
    """Looks up contenders by name, or makes those of the user's own optimizers, see `own`.

    Args:
        names: of the contenders; empty: `USUAL`.

    Returns:
        The contenders, in the given order.

    Raises:
        UnknownNameError: for an unknown name; the message has the nearest names.
        ValueError: if two have the same name.
    """
    for name in names:
        if name not in CONTENDERS and ":" not in name:
            raise UnknownNameError("contender", name, [*CONTENDERS, f"{PATTERN}@RATE", f"{FULL}{PATTERN}@RATE"])
    chosen = [own(name) if ":" in name else CONTENDERS[name] for name in names or USUAL]
    if len({contender.name for contender in chosen}) < len(chosen):
        raise ValueError(f"--contenders has a name twice: {', '.join(names)}; give each contender once")
    return chosen
