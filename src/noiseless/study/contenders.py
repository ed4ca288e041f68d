"""Who races: optimizers with a budget of passes, and the settings that each may choose from before it runs.

A contender is a recipe whose steps are what the budget allows. One that is tuned has a grid: learning rates a factor
`FACTOR` apart around a usual one, for each of three sizes of a block, and with them three weight decays, which differ
from one rate and one size to the next as in a Latin square. The paper's rows keep the paper's weight decay. Every tuned
contender has a grid of the same size; `aggregated` has none: it is one setting for all sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from noiseless.data import Extent
from noiseless.errors import UnknownNameError
from noiseless.recipes.flags import with_flags
from noiseless.recipes.ladder import BLOCK_SCALE, LADDER, aggregated, default_form, on_small, sgd
from noiseless.recipes.recipe import Recipe
from noiseless.run.work import passes_a_step

FACTOR = 2.0
"""between neighbouring learning rates of a grid"""
SIZES = {"paper": (32, 64, 128), "small": (32 // BLOCK_SCALE, 64 // BLOCK_SCALE, 128 // BLOCK_SCALE)}
"""sizes of a block that a grid has, by form"""
Group = Literal["mini-batch", "paper", "full-batch", "aggregated"]


@dataclass(frozen=True)
class Contender:
    """One who races."""

    recipe: Recipe
    """in the paper's form; its learning rate is the middle of the grid"""
    group: Group
    """mini-batch; a row of the paper; another with the full batch; or cyclic mini-batches with memory"""
    size: Literal["block", "norm_block"] | None = "block"
    """the field that the grid's sizes are of: mini-batches, or the blocks of batch norm (and of a penalty); None: there
    is no grid, and the recipe runs as it is"""
    decays: tuple[float, ...] = ()
    """weight decays of the grid; none: the recipe's own alone"""

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.recipe.name


def _contenders() -> dict[str, Contender]:
    adamw = with_flags(sgd(), name="adamw", optimizer="AdamW", lr=2e-3)
    muon = with_flags(
        sgd(), name="muon", optimizer="Muon", lr=2e-2, momentum=0.95, optimizer_options="inner_lr_ratio=0.1"
    )
    full: Mapping[str, Any] = {"regime": "full-batch", "shuffle": True}
    made = [
        Contender(sgd(), "mini-batch", decays=(5e-4, 1.5e-3, 5e-3)),
        Contender(adamw, "mini-batch", decays=(1e-2, 1e-1, 1.0)),
        Contender(muon, "mini-batch", decays=(1e-2, 3e-2, 1e-1)),
        *(Contender(make(), "paper") for make in LADDER.values() if make().objective.regime == "full-batch"),
        Contender(with_flags(adamw, name="fb-adamw", lr=1e-2, **full), "full-batch", "norm_block", (0.1, 0.3, 1.0)),
        Contender(with_flags(muon, name="fb-muon", lr=5e-2, **full), "full-batch", "norm_block", (0.1, 0.3, 1.0)),
        Contender(aggregated(), "aggregated", None),
    ]
    return {each.name: each for each in made}


CONTENDERS: Mapping[str, Contender] = _contenders()
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
"""who races where nobody is named: fb-longer with a budget is fb, and fb-strong with its grid fb-regularized"""


@dataclass(frozen=True)
class Course:
    """What all contenders of a race have in common."""

    data: str
    extent: Extent
    """of that set"""
    pixels: int | None = None
    """images are resized and cropped to this size; None: as they are"""
    model: str | None = None
    """None: the form's"""
    form: Literal["paper", "small"] | None = None
    """None: the set's"""
    augment: bool = True
    """fresh augmentation at each step, or none"""

    @property
    def kind(self) -> str:
        """The form in which it is run."""
        return self.form or default_form(self.data)

    def recipe(self, contender: Contender, budget: int) -> Recipe:
        """A contender's recipe on this course, with a budget.

        Warm-up and horizon keep the proportion to the steps that they have in the contender's recipe; a crop's border
        is an eighth of the image's side.

        Args:
            contender: any.
            budget: passes.

        Returns:
            The recipe, with the budget behind its name.

        Raises:
            ValueError: if the budget is less than a step.
        """
        made = contender.recipe
        cost = passes_a_step(made)
        steps = int(budget / cost)
        if steps < 1:
            raise ValueError(f"a step of {contender.name} costs {cost:g} passes: a budget of {budget} is too small")
        scale = steps / made.schedule.steps
        made = on_small(made, self.data) if self.kind == "small" else with_flags(made, data=self.data)
        return with_flags(
            made,
            name=f"{contender.name}-{budget}",
            pixels=self.pixels,
            model=self.model or made.model.name,
            steps=steps,
            warmup=round(made.schedule.warmup * scale),
            horizon=None if made.schedule.horizon is None else round(made.schedule.horizon * scale),
            augment="crop-flip" if self.augment else "none",
            padding=max(1, min(self.extent.shape[1:]) // 8),
        )

    def grid(self, contender: Contender, budget: int, rates: int) -> list[Recipe]:
        """The settings from which a contender chooses.

        Args:
            contender: any.
            budget: passes.
            rates: learning rates on the grid.

        Returns:
            By size, then by rising rate: lr `m FACTOR**k`, k = -(rates - 1) / 2, ... rounded down, around the
            recipe's own m; rate i with size j has weight decay `(i + j) mod 3`. A contender without a grid has its
            recipe alone.
        """
        made = self.recipe(contender, budget)
        if contender.size is None:
            return [made]
        lrs = [made.optimizer.lr * FACTOR ** (k - (rates - 1) // 2) for k in range(rates)]
        decays = contender.decays or (made.optimizer.weight_decay,)
        return [
            _sized(with_flags(made, lr=lr, weight_decay=decays[(i + j) % len(decays)]), contender.size, size)
            for j, size in enumerate(SIZES[self.kind])
            for i, lr in enumerate(lrs)
        ]


def _sized(recipe: Recipe, field: str, size: int) -> Recipe:
    if field == "block":
        return with_flags(recipe, block=size)
    return with_flags(recipe, norm_block=size, block=max(size, recipe.objective.block))


def chosen(names: Sequence[str]) -> list[Contender]:
    """Contenders by name.

    Args:
        names: none: `USUAL`.

    Returns:
        The contenders, in the given order.

    Raises:
        UnknownNameError: with the nearest names.
        ValueError: for a name that is there twice.
    """
    for name in names:
        if name not in CONTENDERS:
            raise UnknownNameError("contender", name, CONTENDERS)
    if len(set(names)) < len(names):
        raise ValueError(f"each contender races once: {', '.join(names)}")
    return [CONTENDERS[name] for name in names or USUAL]
