"""Which model a state is of, from its names and shapes alone. Before the first step: imports and exports."""

from __future__ import annotations

import torch
from torch import Tensor

from noiseless import models


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
    found = {(name, t.shape) for name, t in state.items()}
    nearest, differing = "", found
    for name in models.names():
        try:
            with torch.device("meta"):
                wanted = {(n, t.shape) for n, t in models.build(name, channels, classes, form).state_dict().items()}
        except ValueError:
            continue  # a model that does not come in this form, or needs options
        if wanted == found:
            return name
        if not nearest or len(wanted ^ found) < len(differing):
            nearest, differing = name, wanted ^ found
    shown = ", ".join(sorted({name for name, _ in differing})[:4])
    raise ValueError(
        f"no known model has its names and shapes; the nearest is {nearest or 'none'}, which differs in"
        f" {len({name for name, _ in differing})} of them ({shown}). Give --model, and the flags of its form"
    )
