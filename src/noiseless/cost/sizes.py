"""Counts the parameters, activations and optimizer state of a run on a model without values, before it is built."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from noiseless import models
from noiseless.data import Extent
from noiseless.models.freezing import freeze
from noiseless.objective.batchnorm import BlockNorm
from noiseless.optim import Searched, entry_of
from noiseless.recipes.flags import with_flags
from noiseless.recipes.recipe import Recipe
from noiseless.run.build import choices
from noiseless.run.updates import make_optimizer
from noiseless.run.work import Work, work_of


@dataclass(frozen=True)
class Sizes:
    """Sizes of a run's parts, in numbers and bytes."""

    work: Work
    data: Extent
    element: int
    """bytes of one element of theta"""
    saved: float
    """bytes that the forward of one example saves for its backward, without parameters"""
    statistics: int
    """S: how many numbers a norm block contributes to batch norm's running statistics"""
    state: float
    """how many numbers the optimizer keeps for each parameter"""


def sizes(recipe: Recipe, data: Extent) -> Sizes:
    """Counts the sizes of a run; no memory is allocated for parameters, activations or images.

    Args:
        recipe: resolved or not.
        data: extent of the data set.

    Returns:
        The sizes.

    Raises:
        ValueError: if the model does not take such images, or cannot be run without values.
    """
    used, held_out = recipe.data.divided(data.train)
    data = replace(data, train=used, test=held_out or data.test)
    form, options = choices(recipe)
    dtype = getattr(torch, recipe.model.dtype)
    channels, height, width = data.shape
    size = (height, width)
    model = models.outline(recipe.model.name, channels, data.classes, form, options, size).to(dtype)
    freeze(model, recipe.model.freeze)
    autocast = torch.bfloat16 if recipe.model.autocast == "bfloat16" else None
    try:
        work = work_of(recipe, model, torch.empty(1, *data.shape, device="meta", dtype=dtype), data.train)
        # the difference of two batch sizes leaves out what does not grow with the batch
        few, many = (_saved(model.train(), torch.Size((n, *data.shape)), dtype, autocast) for n in (2, 4))
    except Exception as error:  # any error of a model that is not ours
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{recipe.model.name} cannot be planned on {channels} x {height} x {width} images ({reason})"
        ) from error
    norm = BlockNorm(model, recipe.objective.norm_block or recipe.objective.block, recipe.objective.statistics)
    return Sizes(work, data, dtype.itemsize, (many - few) / 2, norm.length, _state(recipe))


def _saved(model: nn.Module, shape: torch.Size, dtype: torch.dtype, autocast: torch.dtype | None) -> int:
    """Bytes that a forward of images `[n, C, H, W]` saves for its backward: each storage once, without parameters."""
    saved: list[Tensor] = []  # holds the tensors, so that no address of a storage is used twice

    def save(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with FakeTensorMode():  # CPU tensors, because autocast needs a device
        state = {
            name: torch.empty(t.shape, dtype=t.dtype).requires_grad_(t.requires_grad)
            for name, t in (*model.named_parameters(), *model.named_buffers())
        }
        not_counted = {t.untyped_storage()._cdata: 0 for t in state.values()}
        images = torch.empty(shape, dtype=dtype)
        with (
            torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
            torch.autocast("cpu", autocast, enabled=autocast is not None),
        ):
            functional_call(model, state, (images,))
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in saved}
    return sum((storages | not_counted).values())


def _state(recipe: Recipe) -> float:
    """Numbers that the optimizer keeps for each parameter: from its registry entry, or from a step on a small model."""
    small = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Linear(8, 8)).to(getattr(torch, recipe.model.dtype))
    parameters = sum(p.numel() for p in small.parameters())
    optimizer = make_optimizer(with_flags(recipe, lr_factors=""), small)  # whose patterns are of other names
    if isinstance(optimizer, Searched):
        optimizer = optimizer.base
    if state_size := entry_of(optimizer).state_size:
        return state_size(optimizer.param_groups[0])
    for p in small.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step(lambda: 0.0)
    numbers: int = sum(_numbers(state) for state in optimizer.state.values())
    return numbers / parameters


def _numbers(state: object) -> int:
    """Number of elements in the tensors of an optimizer's state, nested or not, without scalars."""
    if isinstance(state, Tensor):
        return state.numel() if state.numel() > 1 else 0  # a counter does not grow with the parameters
    if isinstance(state, dict):
        return sum(_numbers(part) for part in state.values())
    return sum(_numbers(part) for part in state) if isinstance(state, list | tuple) else 0
