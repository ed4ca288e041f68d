"""What a family of models is to the registry: how a member is made, and which choices of the form it has."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from noiseless.errors import UnknownNameError
from noiseless.models.form import Form

GIVEN = ("channels", "classes", "form", "size")
"""arguments of a maker that are not options"""


@dataclass(frozen=True)
class Family:
    """How a model is made.

    The maker is called with `channels`, `classes`, `form`, the options, and `size` where it has such an argument.
    """

    make: Callable[..., nn.Module]
    choices: Mapping[str, tuple[Any, ...]]
    """values of the form's fields that it can be made in, beside the defaults"""
    why: str = ""
    """why it has no others"""

    def build(
        self,
        name: str,
        channels: int,
        classes: int,
        form: Form,
        options: Mapping[str, Any],
        size: tuple[int, int] | None,
    ) -> nn.Module:
        """The model.

        Args:
            name: of the model, for messages.
            channels: of the images.
            classes: outputs.
            form: see `choices`.
            options: the maker's further arguments.
            size: of the images, `(H, W)`; None: not known.

        Returns:
            What the maker gives.
        """
        refuse_form(name, form, self.choices, self.why)
        takes = inspect.signature(self.make).parameters
        refuse_options(name, options, [key for key in takes if key not in GIVEN])
        sized = {"size": size} if "size" in takes else {}
        module = self.make(channels=channels, classes=classes, form=form, **sized, **options)
        if size is not None and form.padding_mode != "zeros":
            ask_once(name, module, channels, classes, size)  # deep maps of small images may be too small to be framed
        return module


def refuse_form(name: str, form: Form, choices: Mapping[str, tuple[Any, ...]], why: str) -> None:
    """Refuses choices of form that a model has not.

    Args:
        name: of the model.
        form: what is asked for.
        choices: values that it can be made in, beside the defaults, by field.
        why: it has no others.

    Raises:
        ValueError: naming the choice and the reason.
    """
    for field in fields(Form):
        value = getattr(form, field.name)
        if value != field.default and value not in choices.get(field.name, ()):
            raise ValueError(f"{name} cannot be made with {field.name} {value}: {why}; leave it at {field.default}")


def refuse_options(name: str, options: Mapping[str, Any], takes: list[str]) -> None:
    """Refuses options that a model does not take.

    Raises:
        UnknownNameError: naming those that it takes.
        ValueError: if it takes none.
    """
    for option in options:
        if not takes:
            raise ValueError(f"{name} takes no options, and {option} is given")
        if option not in takes:
            raise UnknownNameError(f"option of {name}", option, takes)


def check_rate(name: str, rate: float) -> None:
    """Refuses a rate of dropout that is none.

    Raises:
        ValueError: for anything but a number in [0, 1).
    """
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"{name} must be a probability below 1, not {rate!r}")


def reason(error: Exception) -> str:
    """What an error of foreign code says, in one line: its kind and the first line of its text."""
    first = str(error).strip().split("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def ask_once(name: str, module: nn.Module, channels: int, classes: int, size: tuple[int, int]) -> None:
    """Asks a copy of a model in training mode for the scores of two blank images.

    Args:
        name: of the model, for messages.
        module: the model; it stays as it is.
        channels: of the images.
        classes: outputs that it should have.
        size: of the images, `(H, W)`.

    Raises:
        ValueError: if it cannot give them, or gives something else than class scores.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    images = torch.zeros(2, channels, *size, device=device)
    try:
        with torch.no_grad():
            output = copy.deepcopy(module).train()(images)
    except Exception as error:  # whatever a model that others have written stumbles over
        raise ValueError(
            f"{name} does not take images of {channels} x {size[0]} x {size[1]} in training: {reason(error)}. See its"
            " options, or resize the images (pixels)"
        ) from error
    if not isinstance(output, Tensor) or output.shape != (2, classes):
        given = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"{name} must give one score a class, [2, {classes}] for two images, and gave {given}; see its options"
        )
