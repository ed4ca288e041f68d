"""How much a run computes, known before it begins: passes and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from noiseless.data import Images
from noiseless.objective import EmpiricalRisk, Objective, squared_error
from noiseless.recipes.recipe import Recipe
from noiseless.run.sequence import wrapped

BACKWARD = 2.0
"""FLOPs of a backward divided by those of its forward: one product for the inputs' gradient, one for the parameters'"""


@dataclass(frozen=True)
class Work:
    """How much a run of a recipe computes."""

    passes: float
    """gradient evaluations over the whole training set, in all steps together"""
    examples: int
    """number of training examples"""
    gradient_flops: float
    """FLOPs of one example's forward and backward: matrix products and convolutions, a multiplication and an addition
    counted as two"""
    parameters: int
    """P: number of the model's trainable parameters"""
    tensors: int
    """number of tensors that hold them"""

    @property
    def flops(self) -> float:
        """FLOPs of the run's gradients."""
        return self.passes * self.examples * self.gradient_flops


def passes_a_step(recipe: Recipe) -> float:
    """The cost of a step, in gradient evaluations over the whole training set.

    A penalty with forward differences doubles a sweep, a full strength and SAM add sweeps, and each fixed copy and each
    draw of max-up counts as another training set. What a line search will spend is not known; its first evaluation is
    counted.

    Args:
        recipe: resolved or not.

    Returns:
        Passes.
    """
    copies = recipe.data.copies if recipe.data.copies and recipe.objective.regime == "full-batch" else 1
    return objective_of(recipe).passes * copies * recipe.objective.max_up


def objective_of(recipe: Recipe) -> Objective:
    """The objective of a recipe's update, over one example of a small model, to learn what an evaluation costs.

    Args:
        recipe: resolved or not.

    Returns:
        The objective; its `passes` count gradient evaluations over the update's own examples.
    """
    one = torch.ones(1, 1)
    risk = EmpiricalRisk(nn.PReLU(), squared_error, (one, one))  # draws no random number
    return wrapped(recipe, risk, recipe.optimizer.lr)


def work(recipe: Recipe, model: nn.Module, train: Images) -> Work:
    """The work of a recipe on a data set.

    Args:
        recipe: resolved.
        model: of the recipe; its mode is restored afterwards.
        train: the training images; the first one is forwarded.

    Returns:
        The work; its FLOPs are counted in a forward of one image.
    """
    image = train.take(torch.zeros(1, dtype=torch.int64))[0].to(next(model.parameters()))
    return work_of(recipe, model, image, len(train))


def work_of(recipe: Recipe, model: nn.Module, image: Tensor, examples: int) -> Work:
    """The work of a recipe, from one image. Model and image may be on torch's meta device, as only shapes matter.

    Args:
        recipe: resolved or not.
        model: of the recipe; its mode is restored afterwards.
        image: `[1, C, H, W]`, of the dtype and on the device of the model.
        examples: number of training examples.

    Returns:
        The work.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(image)
    finally:
        for module, training in modes:
            module.training = training
    return Work(
        passes=recipe.schedule.steps * passes_a_step(recipe),
        examples=examples,
        gradient_flops=(1 + BACKWARD) * counter.get_total_flops(),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        tensors=sum(1 for p in model.parameters() if p.requires_grad),
    )
