"""How large the parts of a run are, counted on a model without values: for what is planned before it is built."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from noiseless import models
from noiseless.data import Extent
from noiseless.objective.batchnorm import BlockNorm
from noiseless.optim import Searched, entry_of
from noiseless.recipes.recipe import Recipe
from noiseless.run.build import choices
from noiseless.run.updates import make_optimizer
from noiseless.run.work import Work, work_of


@dataclass(frozen=True)
class Sizes:
    """Numbers and bytes of a run."""

    work: Work
    data: Extent
    element: int
    """bytes of a number of theta"""
    saved: float
    """bytes that the forward of one example keeps for its backward, parameters not counted"""
    statistics: int
    """S: numbers that a norm block reports to batch norm's running statistics"""
    state: float
    """numbers that the optimizer keeps, for each parameter"""


def sizes(recipe: Recipe, data: Extent) -> Sizes:
    """Counts what a run is made of; no parameter, activation or image gets memory.

    Args:
        recipe: resolved or not.
        data: the set's extent.

    Returns:
        The sizes.

    Raises:
        ValueError: if model and images do not fit, or the model cannot be followed without values.
    """
    used, held_out = recipe.data.divided(data.train)
    data = replace(data, train=used, test=held_out or data.test)
    form, options = choices(recipe)
    dtype = getattr(torch, recipe.model.dtype)
    channels, height, width = data.shape
    size = (height, width)
    model = models.outline(recipe.model.name, channels, data.classes, form, options, size).to(dtype)
    autocast = torch.bfloat16 if recipe.model.autocast == "bfloat16" else None
    try:
        work = work_of(recipe, model, torch.empty(1, *data.shape, device="meta", dtype=dtype), data.train)
        # two batches, so that what does not grow with the batch falls out
        few, many = (_saved(model.train(), torch.Size((n, *data.shape)), dtype, autocast) for n in (2, 4))
    except Exception as error:  # whatever a model stumbles over that others have written
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{recipe.model.name} cannot be followed on {channels} x {height} x {width} images ({reason})"
        ) from error
    norm = BlockNorm(model, recipe.objective.norm_block or recipe.objective.block, recipe.objective.statistics)
    return Sizes(work, data, dtype.itemsize, (many - few) / 2, norm.length, _state(recipe))


def _saved(model: nn.Module, shape: torch.Size, dtype: torch.dtype, autocast: torch.dtype | None) -> int:
    """Bytes that a forward of images `[n, C, H, W]` keeps for the backward, each storage once, without parameters."""
    kept: list[Tensor] = []  # alive, so that no storage takes another's place

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with FakeTensorMode():  # of CPU tensors, as autocast needs a device
        state = {
            name: torch.empty(t.shape, dtype=t.dtype).requires_grad_(t.requires_grad)
            for name, t in (*model.named_parameters(), *model.named_buffers())
        }
        own = {t.untyped_storage()._cdata: 0 for t in state.values()}
        images = torch.empty(shape, dtype=dtype)
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", autocast, enabled=autocast is not None),
        ):
            functional_call(model, state, (images,))
    found = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}
    return sum((found | own).values())


def _state(recipe: Recipe) -> float:
    """Numbers that the optimizer keeps for a parameter: as its entry says, or as seen in a step on a small model."""
    small = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Linear(8, 8)).to(getattr(torch, recipe.model.dtype))
    parameters = sum(p.numel() for p in small.parameters())
    optimizer = make_optimizer(recipe, small)
    if isinstance(optimizer, Searched):
        optimizer = optimizer.base
    if state_size := entry_of(optimizer).state_size:
        return state_size(optimizer.param_groups[0])
    for p in small.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step(lambda: 0.0)
    kept: int = sum(_numbers(state) for state in optimizer.state.values())
    return kept / parameters


def _numbers(state: object) -> int:
    if isinstance(state, Tensor):
        return state.numel() if state.numel() > 1 else 0  # a counter is none of the parameters'
    if isinstance(state, dict):
        return sum(_numbers(part) for part in state.values())
    return sum(_numbers(part) for part in state) if isinstance(state, list | tuple) else 0
