"""From a recipe to the sequence of objectives: images as they are seen, loss, penalty, regime."""

from __future__ import annotations

from dataclasses import replace

import torch

from noiseless.data import Images, ImageSet
from noiseless.objective import EmpiricalRisk, GradientPenalty, Objective, SharpnessAware
from noiseless.optim import schedules
from noiseless.run.recipe import Recipe
from noiseless.run.regimes import FullBatch, Regime, Stochastic, Switch


def make_images(recipe: Recipe, dataset: ImageSet, device: torch.device) -> tuple[Images, Images]:
    """Training and test images as a recipe has them seen.

    Args:
        recipe: resolved.
        dataset: the bytes.
        device: where they are kept.

    Returns:
        Both parts; the test part is not augmented.

    Raises:
        ValueError: if an image is too small for the augmentation.
    """
    if recipe.augment == "crop-flip" and recipe.padding > 0 and min(dataset.x_train.shape[2:]) < 2:
        raise ValueError("images of one pixel cannot be cropped; use --augment none")
    assert recipe.mean is not None and recipe.std is not None
    dtype = getattr(torch, recipe.dtype)
    train = Images(
        dataset.x_train.to(device), dataset.y_train.to(device), recipe.mean, recipe.std, dtype,
        recipe.augment, recipe.padding, recipe.flip, recipe.seed,
    )  # fmt: skip
    return train, Images(dataset.x_test.to(device), dataset.y_test.to(device), recipe.mean, recipe.std, dtype)


def make_regime(recipe: Recipe, risk: EmpiricalRisk, train: Images, schedule: schedules.Schedule) -> Regime:
    """The sequence of objectives of a recipe.

    Args:
        recipe: resolved.
        risk: over the training images.
        train: the training images.
        schedule: gives the penalty's scale.

    Returns:
        The regime.
    """

    def wrap(risk: EmpiricalRisk, step: int) -> Objective:
        made: Objective = risk
        if recipe.penalty or recipe.full_penalty:
            made = GradientPenalty(
                risk, recipe.penalty, lr=schedule(step), full_strength=recipe.full_penalty,
                method=recipe.penalty_method, eps=recipe.penalty_eps,
            )  # fmt: skip
        return SharpnessAware(made, recipe.sam) if recipe.sam else made

    def whole(step: int) -> Images:
        return replace(train, copies=recipe.copies) if recipe.copies else replace(train, epoch=step)

    def one_copy(step: int) -> Images:
        return replace(train, epoch=step % recipe.copies if recipe.copies else step)

    full = FullBatch(risk, whole, wrap, recipe.seed, bool(recipe.shuffle))
    stochastic = Stochastic(risk, one_copy, wrap, recipe.seed, recipe.shuffle is not False, recipe.replacement)
    if recipe.regime == "switch":
        return Switch(stochastic, full, recipe.switch)
    return full if recipe.regime == "full-batch" else stochastic
