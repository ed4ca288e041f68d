"""Builds a recipe's sequence of objectives: images with their augmentation, loss, penalty, regime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from noiseless import keyed
from noiseless.data import Images, ImageSet, Policy, make_policy
from noiseless.data.policyfunction import policy_from
from noiseless.losses.classification import Kind, classification_loss, cross_entropy
from noiseless.losses.function import loss_from
from noiseless.losses.terms import PerExample
from noiseless.objective import BlockClip, EmpiricalRisk, GradientPenalty, Objective, SharpnessAware, max_up, risk_of
from noiseless.objective.risk import Blockwise
from noiseless.optim import parse_options, schedules
from noiseless.recipes.recipe import Recipe
from noiseless.run.regimes import FullBatch, Regime, Stochastic, Switch, View
from noiseless.trust import is_code

MOST_EXAMPLES = 2**27
"""largest number of examples in a fixed set of copies: an order of them takes 1 GiB"""


def make_images(recipe: Recipe, dataset: ImageSet, device: torch.device) -> tuple[Images, Images]:
    """Training and test images of a recipe; with `validation`, both are parts of the training images.

    One keyed order of the training images gives the parts: the first `round(validation N)` are held out, the next
    `images` are trained on.

    Args:
        recipe: resolved.
        dataset: its images and labels.
        device: to which they are moved, if the data set is small enough; else they stay on the CPU.

    Returns:
        Training images with the recipe's augmentation, and test or held-out images without.

    Raises:
        ValueError: if the images do not suit the augmentation or the policy, if the policy refuses its options, or if
            one of the parts would be empty.
    """
    data = recipe.data
    if data.augment == "crop-flip" and data.padding > 0 and min(dataset.x_train.shape[2:]) < 2:
        raise ValueError("images of one pixel cannot be cropped; use --augment none")
    side = min(dataset.x_train.shape[2:])
    if data.augment == "crop-flip" and data.padding > side:
        raise ValueError(
            f"--padding {data.padding} of images with a side of {side} pixels would leave crops without any of their"
            f" pixels: give at most {side}"
        )
    if (examples := len(dataset.x_train) * data.copies) > MOST_EXAMPLES:
        raise ValueError(
            f"--copies {data.copies} of {len(dataset.x_train):,} images would be {examples:,} examples in a step: give"
            f" fewer copies, for at most {MOST_EXAMPLES:,}"
        )
    assert data.mean is not None and data.std is not None
    dtype = getattr(torch, recipe.model.dtype)
    device = device if dataset.resident else torch.device("cpu")
    train = Images(
        dataset.x_train.to(device), dataset.y_train.to(device), data.mean, data.std, dtype,
        data.augment, data.padding, data.flip, recipe.seed,
        policy=_policy(recipe, dataset.x_train), first_clean=data.first_clean,
    )  # fmt: skip
    used, held_out = data.divided(len(train))
    full, plain = train, replace(train, augment="none", policy=None)
    if used < len(full):  # not for all images: an order of millions takes seconds
        order = keyed.permutation(recipe.seed, "validation", 0, len(full))
        train = full.only(order[held_out : held_out + used].sort().values)
    if held_out:
        return train, plain.only(order[:held_out].sort().values)
    return train, Images(dataset.x_test.to(device), dataset.y_test.to(device), data.mean, data.std, dtype)


def make_loss(recipe: Recipe, classes: int, device: torch.device) -> PerExample:
    """The loss of each example.

    Args:
        recipe: resolved.
        classes: number of class scores.
        device: of the class scores.

    Returns:
        The loss that is minimised; with `max_up`, the largest loss among the draws of an image.

    Raises:
        ValueError: if a loss of the user's own is not trusted, or is no loss.
    """
    objective = recipe.objective
    if is_code(objective.loss):
        loss = _own_loss(recipe, classes, device)
    else:
        kind, others_only = cast("Kind", objective.loss), recipe.compat == "published"
        loss = classification_loss(kind, objective.label_smoothing, others_only=others_only)
    return max_up(loss, objective.max_up) if objective.max_up > 1 else loss


def make_test_loss(recipe: Recipe, classes: int, device: torch.device) -> PerExample:
    """The loss of each test image: the user's own where the recipe names one, cross entropy for all others.

    Args:
        recipe: resolved.
        classes: number of class scores.
        device: of the class scores.

    Returns:
        The loss.

    Raises:
        ValueError: if a loss of the user's own is not trusted, or is no loss.
    """
    return _own_loss(recipe, classes, device) if is_code(recipe.objective.loss) else cross_entropy


def _own_loss(recipe: Recipe, classes: int, device: torch.device) -> PerExample:
    objective = recipe.objective
    options = options_of("--loss-options", objective.loss_options)
    return loss_from(objective.loss, classes, options, getattr(torch, recipe.model.dtype), device)


def options_of(flag: str, text: str) -> dict[str, Any]:
    """The options in the text of a flag.

    Returns:
        Value by name.

    Raises:
        ValueError: for other texts, naming the flag.
    """
    try:
        return parse_options(text)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None


def make_regime(recipe: Recipe, risk: EmpiricalRisk, train: Images, schedule: schedules.Schedule) -> Regime:
    """The sequence of objectives of a recipe on images.

    Args:
        recipe: resolved.
        risk: over the training images.
        train: the training images.
        schedule: learning rate by time, which scales the penalty.

    Returns:
        The regime.
    """
    objective, copies = recipe.objective, recipe.data.copies

    # Views of the data set at a step. A draw's key is epoch + copy: with fresh draws no two steps may share one.
    def fresh(step: int) -> Images:
        return replace(train, epoch=step * objective.max_up, copies=objective.max_up)

    def every_copy(step: int) -> Images:
        return replace(train, copies=copies)

    def one_copy(step: int) -> Images:
        return replace(train, epoch=step % copies)

    return regime_of(recipe, risk, schedule, every_copy if copies else fresh, one_copy if copies else fresh)


def regime_of(
    recipe: Recipe, risk: EmpiricalRisk, schedule: schedules.Schedule, full_view: View, stochastic_view: View
) -> Regime:
    """The sequence of objectives of a recipe on any examples.

    Args:
        recipe: resolved.
        risk: over the training examples.
        schedule: learning rate by time, which scales the penalty.
        full_view: the examples as a full-batch step sees them.
        stochastic_view: the examples as a stochastic step sees them.

    Returns:
        The regime.
    """
    objective, by_update = recipe.objective, recipe.schedule.rate_by == "update"

    def wrap(risk: EmpiricalRisk, time: float) -> Objective:
        return wrapped(recipe, risk, schedule(time))

    full = FullBatch(
        risk, full_view, wrap, recipe.seed, bool(objective.shuffle),
        objective.drop_last, objective.max_up, objective.parts, by_update,
    )  # fmt: skip
    if objective.regime == "full-batch":
        return full
    stochastic = Stochastic(
        replace(risk, statistics="ema"), stochastic_view, wrap, recipe.seed,
        objective.shuffle is not False, objective.replacement, objective.drop_last, objective.max_up, by_update,
        (objective.norm_block or objective.block) if objective.draw == "norm-blocks" else 1,
    )  # fmt: skip
    return Switch(stochastic, full, objective.switch) if objective.regime == "switch" else stochastic


def _penalised(recipe: Recipe, objective: Objective, lr: float) -> Objective:
    part = recipe.objective
    if not part.penalised:
        return objective
    published = recipe.compat == "published"
    halved = published and part.penalty_method == "central"  # there eps is the distance between the two probes
    return GradientPenalty(
        risk_of(objective), part.penalty, lr=lr, full_strength=part.full_penalty, method=part.penalty_method,
        eps=part.penalty_eps / (2 if halved else 1), published=published,
    )  # fmt: skip


def _block_clipped(recipe: Recipe, objective: Objective, lr: float) -> Objective:
    if recipe.transforms.block_clip is None:
        return objective
    assert isinstance(objective, Blockwise)
    return BlockClip(objective, recipe.transforms.block_clip)


def _sharpness_aware(recipe: Recipe, objective: Objective, lr: float) -> Objective:
    return SharpnessAware(objective, recipe.objective.sam) if recipe.objective.sam else objective


WRAPPERS: list[Callable[[Recipe, Objective, float], Objective]] = [_penalised, _block_clipped, _sharpness_aware]
"""(recipe, objective, learning rate) -> the objective, wrapped if the recipe asks for it; applied in this order"""


def wrapped(recipe: Recipe, risk: EmpiricalRisk, lr: float) -> Objective:
    """What an update of a recipe minimises: a risk with the recipe's `WRAPPERS` around it.

    Args:
        recipe: resolved or not.
        risk: over the examples of the update.
        lr: learning rate of the update, which scales the penalty.

    Returns:
        The objective.
    """
    objective: Objective = risk
    for wrapper in WRAPPERS:
        objective = wrapper(recipe, objective, lr)
    return objective


def _policy(recipe: Recipe, images: Tensor) -> Policy | None:
    """The recipe's policy; images uint8 `[N, C, H, W]` are those on which one of the user's own is tried."""
    data = recipe.data
    if data.policy == "none":
        return None
    if is_code(data.policy):
        return policy_from(data.policy, images, options_of("--policy-options", data.policy_options))
    try:
        return make_policy(data.policy, images.shape[1], **parse_options(data.policy_options))
    except ValueError as error:
        raise ValueError(f"--policy {data.policy} --policy-options {data.policy_options!r}: {error}") from None
