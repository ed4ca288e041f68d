"""What a run computes, known before it begins: passes and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from noiseless.data import Images
from noiseless.objective.penalty import PASSES
from noiseless.run.recipe import Recipe

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
    copies = recipe.copies if recipe.copies and recipe.regime == "full-batch" else 1
    return gradients_an_update(recipe) * copies * recipe.max_up


def gradients_an_update(recipe: Recipe) -> float:
    """Gradient evaluations of an update, in those of its own examples.

    Args:
        recipe: resolved or not.

    Returns:
        1 without penalty and SAM.
    """
    sweep = PASSES[recipe.penalty_method] if recipe.penalty or recipe.full_penalty else 1.0
    sweep += recipe.full_penalty > 0
    return sweep * (2 if recipe.sam else 1)


def sweeps_an_update(recipe: Recipe) -> int:
    """Sweeps of an update, each with an exact sum of its own: a penalty's probes belong to the sweep of their block."""
    return (1 + (recipe.full_penalty > 0)) * (2 if recipe.sam else 1)


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
        passes=recipe.steps * passes_a_step(recipe),
        examples=examples,
        gradient_flops=(1 + BACKWARD) * counter.get_total_flops(),
        parameters=sum(p.numel() for p in model.parameters()),
        tensors=sum(1 for _ in model.parameters()),
    )
