"""A run's model for images that are not its own: for `noiseless evaluate --data` and `noiseless predict`.

It is built without the run's data, which need not be on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from noiseless import models
from noiseless.data import Images, load
from noiseless.data.catalogue import ENTRIES
from noiseless.data.folder import classes_in
from noiseless.exchange.recognise import classes_of
from noiseless.files.address import StateAddress
from noiseless.files.parameters import fill
from noiseless.files.stored import read_state
from noiseless.losses.terms import PerExample
from noiseless.recipes.recipe import Recipe
from noiseless.run.build import choices, rebuild
from noiseless.run.sequence import make_test_loss


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What `evaluate` scores."""

    model: nn.Module
    """whose state is to be filled in where it is not the initial one"""
    images: dict[str, Images]
    """part of the data set -> its images, without augmentation"""
    loss: PerExample
    """loss of each image"""


def evaluated(address: StateAddress, data: str | None, data_dir: Path | None) -> Evaluated:
    """The model of a run, its loss, and images on which it is evaluated.

    Args:
        address: which run, and which of its states.
        data: name of another data set; None: that of the run.
        data_dir: directory of data sets; None: the usual one.

    Returns:
        The model, the images by part, and the loss.

    Raises:
        ValueError: if the images are not those of the model.
    """
    if data is None:
        experiment = rebuild(address.directory, snapshots=False)
        train = replace(experiment.train, augment="none", policy=None)
        return Evaluated(experiment.model, {"train": train, "test": experiment.test}, experiment.test_loss)
    recipe = address.directory.config().recipe
    dataset = load(data, data_dir, recipe.data.pixels)
    size = dataset.x_test.shape[2], dataset.x_test.shape[3]
    model, classes = loaded(address, size)
    channels = len(_mean(address))
    if dataset.x_test.shape[1] != channels:
        raise ValueError(
            f"the images of {data} have {dataset.x_test.shape[1]} channels, and those of the run's"
            f" {recipe.data.name} have {channels}"
        )
    parts = {"train": (dataset.x_train, dataset.y_train), "test": (dataset.x_test, dataset.y_test)}
    if dataset.classes > classes or int(dataset.y_test.max()) >= classes:
        raise ValueError(f"{data} has {dataset.classes} classes, and the run's model tells {classes} apart")
    images = {part: _images(recipe, x, y) for part, (x, y) in parts.items()}
    return Evaluated(model, images, make_test_loss(recipe, classes, torch.device("cpu")))


def loaded(address: StateAddress, size: tuple[int, int] | None, average: bool = False) -> tuple[nn.Module, int]:
    """The model of a run in one of its states, built without the run's data.

    Args:
        address: which run, and which of its states.
        size: of the images, `(H, W)`; None: not known.
        average: whether the state is the exponential average of the parameters; for the end of a run only.

    Returns:
        The module, in evaluation mode, on the CPU, and its number of classes.

    Raises:
        ValueError: if the run has no such state, or it is not of its model.
    """
    recipe = address.directory.config().recipe
    if average and address.step is None:
        state: dict[str, Tensor] | None = address.directory.state(average=True)
        source = address.directory.path
    else:
        stored = read_state(address)
        state, source = stored.model, stored.file
    if state is None:
        raise ValueError(f"{address} is the initial state, which no file holds: give a step with a checkpoint")
    form, options = choices(recipe)
    channels = len(_mean(address))

    def build(classes: int) -> nn.Module:
        return models.build(recipe.model.name, channels, classes, form, options=options, size=size)

    try:
        classes = classes_of(state, build)
    except ValueError as error:
        raise ValueError(f"{source} is not of the run's model {recipe.model.name}: {error}") from None
    model = build(classes).to(getattr(torch, recipe.model.dtype))
    fill(model, state, source)
    return model.eval(), classes


def _mean(address: StateAddress) -> tuple[float, ...]:
    """The mean of each channel, which a run's config has."""
    data = address.directory.config().recipe.data
    if data.mean is None or data.std is None or len(data.mean) != len(data.std):
        raise ValueError(f"the config of {address.directory.path} lacks mean and std: restore it from a copy")
    return data.mean


def pixels_of(recipe: Recipe) -> int | None:
    """The size to which a recipe's images are resized, or have in their data set; None: not known without the data."""
    if recipe.data.pixels is not None:
        return recipe.data.pixels
    shape = ENTRIES[recipe.data.name].shape if recipe.data.name in ENTRIES else ""
    return int(shape.rpartition("x")[2]) if shape.rpartition("x")[2].isdecimal() else None


def class_names(recipe: Recipe) -> list[str]:
    """The names of the classes in their order: the class folders of `folder:PATH`, if they are here, else none."""
    kind, _, path = recipe.data.name.partition(":")
    train = Path(path) / "train"
    return classes_in(train) if kind == "folder" and train.is_dir() else []


def normalised(recipe: Recipe, images: Tensor) -> Tensor:
    """Images uint8 `[n, C, H, W]` as a recipe's model expects them."""
    return _images(recipe, images, torch.zeros(len(images), dtype=torch.int64)).take(torch.arange(len(images)))[0]


def _images(recipe: Recipe, x: Tensor, y: Tensor) -> Images:
    """Images normalised as a recipe's, without augmentation."""
    assert recipe.data.mean is not None and recipe.data.std is not None
    return Images(x, y, recipe.data.mean, recipe.data.std, getattr(torch, recipe.model.dtype))
