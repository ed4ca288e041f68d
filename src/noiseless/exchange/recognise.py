"""Which model a state is of, from its names and shapes alone. Before the first step: imports and exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import torch
from torch import Tensor, nn

from noiseless import models
from noiseless.exchange.description import Description

Shapes = set[tuple[str, torch.Size]]


def sizes(state: dict[str, Tensor]) -> tuple[int, int]:
    """Channels of the images and number of classes of a model.

    Args:
        state: its parameters and buffers in its order: the first convolution `[width, channels, k, k]` and the last
            matrix `[classes, features]` tell.

    Returns:
        Both.

    Raises:
        ValueError: if it has no convolution or no matrix.
    """
    channels = next((t.shape[1] for t in state.values() if t.ndim == 4), None)
    classes = next((t.shape[0] for t in reversed(state.values()) if t.ndim == 2), None)
    if channels is None or classes is None:
        raise ValueError("no convolution or no last matrix in it: it is not the state of a network for images")
    return channels, classes


def recognise(state: dict[str, Tensor], form: models.Form) -> str:
    """The model whose names and shapes a state has; no parameter is made for it.

    Args:
        state: parameters and buffers, in the model's order.
        form: in which the models are tried.

    Returns:
        The model's name.

    Raises:
        ValueError: with the nearest model and what differs, if none fits.
    """
    channels, classes = sizes(state)
    found = _of(state)
    nearest, differing = "", found
    for name in models.names():
        wanted = _known(name, channels, classes, form)
        if wanted is None:
            continue
        if wanted == found:
            return name
        if not nearest or len(wanted ^ found) < len(differing):
            nearest, differing = name, wanted ^ found
    shown = ", ".join(sorted({name for name, _ in differing})[:4])
    raise ValueError(
        f"no known model has its names and shapes; the nearest is {nearest or 'none'}, which differs in"
        f" {len({name for name, _ in differing})} of them ({shown}). Give --model, and the flags of its form"
    )


def classes_of(state: Mapping[str, Tensor], build: Callable[[int], nn.Module]) -> int:
    """Number of classes of a state, in whatever order its names are.

    Args:
        state: parameters and buffers.
        build: makes its model for a number of classes.

    Returns:
        The number with which names and shapes are the state's.

    Raises:
        ValueError: if there is none.
    """
    found = _of(state)
    for dimensions in ((2,), (1, 4)):  # of a matrix as a rule
        for classes in sorted({t.shape[0] for t in state.values() if t.ndim in dimensions}):
            if _shapes(partial(build, classes)) == found:
                return classes
    raise ValueError("no number of classes gives its model this state's names and shapes")


@cache
def _known(name: str, channels: int, classes: int, form: models.Form) -> Shapes | None:
    """Of a model by name; None where it does not come in this form, or needs options."""
    try:
        return _shapes(Description(name, channels, classes, form).build)
    except ValueError:
        return None


def _shapes(build: Callable[[], nn.Module]) -> Shapes:
    with torch.device("meta"):  # no parameter is made
        return _of(build().state_dict())


def _of(state: Mapping[str, Tensor]) -> Shapes:
    return {(name, t.shape) for name, t in state.items()}
