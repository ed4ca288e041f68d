"""What a run computes, known before it begins: passes and floating-point operations."""

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
"""FLOPs of a backward, in those of its forward: one product for the inputs' gradient, one for the parameters'"""


@dataclass(frozen=True)
class Work:
    """What a recipe asks of a machine."""

    passes: float
    """gradient evaluations over the whole training set, in all steps"""
    examples: int
    """in the training set"""
    gradient_flops: float
    """FLOPs of one example's forward and backward: matrix products and convolutions, a multiplication and an addition
    counted as two"""
    parameters: int
    """in the model"""
    tensors: int
    """that hold the parameters"""

    @property
    def flops(self) -> float:
        """FLOPs of the run's gradients."""
        return self.passes * self.examples * self.gradient_flops


def passes_a_step(recipe: Recipe) -> float:
    """What a step costs, in gradient evaluations over the whole training set.

    A penalty with forward differences doubles a sweep, a full strength and SAM add sweeps, each fixed copy and each
    draw of max-up is a set of its own. What a line search will spend is not known; its first evaluation is counted.

    Args:
        recipe: resolved or not.

    Returns:
        Passes.
    """
    copies = recipe.data.copies if recipe.data.copies and recipe.objective.regime == "full-batch" else 1
    return objective_of(recipe).passes * copies * recipe.objective.max_up


def objective_of(recipe: Recipe) -> Objective:
    """The objective of an update of a recipe, over one example of a small model: it tells what an evaluation costs.

    Args:
        recipe: resolved or not.

    Returns:
        The objective; its `passes` are in those of the update's own examples.
    """
    one = torch.ones(1, 1)
    risk = EmpiricalRisk(nn.PReLU(), squared_error, (one, one))  # draws no random number
    return wrapped(recipe, risk, recipe.optimizer.lr)


def work(recipe: Recipe, model: nn.Module, train: Images) -> Work:
    """What a recipe asks for.

    Args:
        recipe: resolved.
        model: left in the mode in which it stands.
        train: the training images, of which the first is forwarded.

    Returns:
        The work; its FLOPs are counted in one forward of one image.
    """
    image = train.take(torch.zeros(1, dtype=torch.int64))[0].to(next(model.parameters()))
    return work_of(recipe, model, image, len(train))


def work_of(recipe: Recipe, model: nn.Module, image: Tensor, examples: int) -> Work:
    """The same from one image `[1, C, H, W]`, which has no need of values: all may be on torch's meta device.

    Args:
        recipe: resolved or not.
        model: left in the mode in which it stands.
        image: of the shape, dtype and device that the model takes.
        examples: in the training set.

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
        parameters=sum(p.numel() for p in model.parameters()),
        tensors=sum(1 for _ in model.parameters()),
    )
