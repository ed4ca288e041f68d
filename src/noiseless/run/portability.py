"""What a run with `--portable` cannot have, refused by name before it starts."""

from __future__ import annotations

from dataclasses import replace

from torch.optim import Optimizer

from noiseless.objective import EmpiricalRisk
from noiseless.optim.registry import optimizer_entry
from noiseless.portable.powers import OPTIMIZERS
from noiseless.recipes.config import Config

EXAMPLES = 4
"""examples of the trial: enough for batch norm to have a variance in a map of one pixel"""


def refuse_unportable(config: Config, optimizer: Optimizer | None = None) -> None:
    """Refuses what has other bits on other machines and is not seen by the mode that replaces operations.

    Args:
        config: of a portable run.
        optimizer: a user's own; None: that of the recipe's name.

    Raises:
        ValueError: naming the flag and what to give in its place.
    """
    recipe, settings, name = config.recipe, config.settings, config.recipe.optimizer.name
    if optimizer is not None:
        portable = type(optimizer) in [optimizer_entry(one).kind for one in OPTIMIZERS]
    else:
        portable = ":" not in name and optimizer_entry(name).kind.__name__ in OPTIMIZERS
    lacking = {
        "--compile on": (settings.compile == "on", "compiled code rounds as each processor allows: --compile off"),
        "--autocast bfloat16": (recipe.model.autocast != "none", "bfloat16 has no exact products: --autocast none"),
        f"--device {settings.device}": (settings.device != "cpu", "the bits of GPUs are other ones: --device cpu"),
        f"--optimizer {name}": (not portable, f"choose one of {', '.join(OPTIMIZERS)}"),
        f"--line-search {recipe.optimizer.line_search}": (recipe.optimizer.line_search != "none", "leave it out"),
        f"--policy {recipe.data.policy}": (recipe.data.policy != "none", "its filters are not known: --policy none"),
        "--pixels": (recipe.data.pixels is not None, "resizing is another library's: give images of that size"),
        "--transform": (bool(recipe.transforms.transform), "what your function computes is not known: leave it out"),
    }  # fmt: skip
    for flag, (given, remedy) in lacking.items():
        if given:
            raise ValueError(f"{flag} is not portable, and --portable asks for the same bits everywhere: {remedy}")


def try_block(risk: EmpiricalRisk) -> None:
    """Computes loss and gradient of a few examples, so that an operation without a portable form is refused now.

    Args:
        risk: of a portable run.

    Raises:
        NotPortableError: as ValueError, naming the operation.
    """
    few = risk.at(replace(risk.selection, order=risk.selection.numbers[:EXAMPLES], step=0))
    batch = few._batch(few.blocks.chunks(1)[0])
    with few.block_loss.in_sweep():
        few.block_loss.differentiate(risk.space.theta.detach().clone(), batch)
