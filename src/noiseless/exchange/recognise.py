"""Finds the model that a state belongs to, from its names and shapes alone. Before the first step: imports, exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import torch
from torch import Tensor, nn

from noiseless import models
from noiseless.exchange.description import Description

Shapes = set[tuple[str, torch.Size]]


def sizes(state: dict[str, Tensor]) -> tuple[int, int]:
    """The channels of the images and the number of classes of a model.

    They are read from the first convolution `[width, channels, k, k]` and the last matrix `[classes, features]`.

    Args:
        state: the model's parameters and buffers, in the model's order.

    Returns:
        Both.

    Raises:
        ValueError: if the state has no convolution or no matrix.
    """
    channels = next((t.shape[1] for t in state.values() if t.ndim == 4), None)
    classes = next((t.shape[0] for t in reversed(state.values()) if t.ndim == 2), None)
    if channels is None or classes is None:
        raise ValueError("it has no convolution or no matrix, so it is not the state of a network for images")
    return channels, classes


def recognise(state: dict[str, Tensor], form: models.Form) -> str:
    """The model whose names and shapes a state has. No memory is used for parameters of the models.

    Args:
        state: parameters and buffers, in the model's order.
        form: of the models that are compared.

    Returns:
        The model's name.

    Raises:
        ValueError: with the nearest model and the differences, if none fits.
    """
    channels, classes = sizes(state)
    shapes = _shapes(state)
    nearest, differing = "", shapes
    for name in models.names():
        model_shapes = _model_shapes(name, channels, classes, form)
        if model_shapes is None:
            continue
        if model_shapes == shapes:
            return name
        if not nearest or len(model_shapes ^ shapes) < len(differing):
            nearest, differing = name, model_shapes ^ shapes
    shown = ", ".join(sorted({name for name, _ in differing})[:4])
    raise ValueError(
        f"no known model has its names and shapes; the nearest is {nearest or 'none'}, which differs in"
        f" {len({name for name, _ in differing})} of them ({shown}). Give --model, and the flags of its form"
    )


def classes_of(state: Mapping[str, Tensor], build: Callable[[int], nn.Module]) -> int:
    """The number of classes of a state, whose names may be in any order.

    Args:
        state: parameters and buffers.
        build: number of classes -> the state's model.

    Returns:
        The number for which the model has the names and shapes of the state.

    Raises:
        ValueError: if there is no such number.
    """
    shapes = _shapes(state)
    for dimensions in ((2,), (1, 4)):  # in most models the size of a matrix
        for classes in sorted({t.shape[0] for t in state.values() if t.ndim in dimensions}):
            if _built_shapes(partial(build, classes)) == shapes:
                return classes
    raise ValueError("no number of classes gives its model this state's names and shapes")


@cache
def _model_shapes(name: str, channels: int, classes: int, form: models.Form) -> Shapes | None:
    """The names and shapes of a model; None if the model does not exist in this form, or needs options."""
    try:
        return _built_shapes(Description(name, channels, classes, form).build)
    except ValueError:
        return None


def _built_shapes(build: Callable[[], nn.Module]) -> Shapes:
    """The names and shapes of the model that `build` makes."""
    with torch.device("meta"):  # parameters on the meta device have no memory
        return _shapes(build().state_dict())


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    """The names and shapes of a state."""
    return {(name, t.shape) for name, t in state.items()}
