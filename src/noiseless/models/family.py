"""A family of models in the registry: how a model is built, and which choices of `Form` it supports."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from noiseless.errors import UnknownNameError, reason
from noiseless.models.form import Form

COMMON_ARGUMENTS = ("channels", "classes", "form", "size")
"""arguments of `Family.make` that are not options"""


@dataclass(frozen=True)
class Family:
    """How a model is built, and in which forms."""

    make: Callable[..., nn.Module]
    """called with `channels`, `classes`, `form`, the options, and, if it has such an argument, `size`"""
    choices: Mapping[str, tuple[Any, ...]]
    """supported values of the fields of `Form`, in addition to the defaults"""
    why: str = ""
    """why no other values are supported, for the error message"""

    def build(
        self,
        name: str,
        channels: int,
        classes: int,
        form: Form,
        options: Mapping[str, Any],
        size: tuple[int, int] | None,
    ) -> nn.Module:
        """Builds a model.

        Args:
            name: of the model, for messages.
            channels: of the images.
            classes: outputs.
            form: see `choices`.
            options: further arguments of `make`.
            size: of the images, `(H, W)`; None: not known.

        Returns:
            The model.

        Raises:
            ValueError: if the family has no such form or option, or if a value is out of range.
        """
        refuse_form(name, form, self.choices, self.why)
        accepted = inspect.signature(self.make).parameters
        refuse_options(name, options, [key for key in accepted if key not in COMMON_ARGUMENTS])
        refuse_names(name, options)
        sized = {"size": size} if "size" in accepted else {}
        try:
            module = self.make(channels=channels, classes=classes, form=form, **sized, **options)
        except (TypeError, OverflowError) as error:
            raise ValueError(
                f"{name} cannot be built for {channels} channels and {classes} classes with the options"
                f" {dict(options)}: {reason(error)}"
            ) from error
        if size is not None and form.padding_mode != "zeros":
            check_forward(name, module, channels, classes, size)  # deep maps of small images may be too small to pad
        return module


def refuse_form(name: str, form: Form, choices: Mapping[str, tuple[Any, ...]], why: str) -> None:
    """Raises if a form has a choice that a model does not support.

    Args:
        name: of the model.
        form: the form.
        choices: supported values by field, in addition to the defaults.
        why: no other values are supported.

    Raises:
        ValueError: with the choice and the reason.
    """
    for field in fields(Form):
        value = getattr(form, field.name)
        if value != field.default and value not in choices.get(field.name, ()):
            raise ValueError(f"{name} cannot be built with {field.name} {value}: {why}; leave it at {field.default}")


def refuse_options(name: str, options: Mapping[str, Any], known: list[str]) -> None:
    """Raises if an option is not among the known options of a model.

    Raises:
        UnknownNameError: with the known ones.
        ValueError: if the model has no options.
    """
    for option in options:
        if not known:
            raise ValueError(f"{name} takes no options, and {option} is given")
        if option not in known:
            raise UnknownNameError(f"option of {name}", option, known)


def refuse_names(name: str, options: Mapping[str, Any]) -> None:
    """Raises unless the values of options are numbers, words, None, or tuples, lists and dictionaries of these.

    They may come from the config of somebody else's run, so they name no file, no address and no function.

    Raises:
        ValueError: with the option and its value.
    """
    for option, value in options.items():
        if not _plain(value):
            raise ValueError(
                f"{name} takes the option {option} as numbers and words only, which name no file, address or function,"
                f" not {value!r}"
            )


def _plain(value: Any) -> bool:
    """Whether a value is made of numbers, words and None."""
    if isinstance(value, str):
        return re.fullmatch(r"[\w+ -]{0,64}", value) is not None
    if isinstance(value, Mapping):
        return all(_plain(part) for item in value.items() for part in item)
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float)


def check_rate(name: str, rate: float) -> None:
    """Raises unless a dropout rate is a number in [0, 1).

    Raises:
        ValueError: with its name and value.
    """
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(f"{name} must be a probability below 1, not {rate!r}")


def check_forward(name: str, module: nn.Module, channels: int, classes: int, size: tuple[int, int]) -> None:
    """Runs a copy of a model in training mode on two blank images, and raises unless it returns class scores.

    Args:
        name: of the model, for messages.
        module: the model; it is not changed.
        channels: of the images.
        classes: number of outputs that it should have.
        size: of the images, `(H, W)`.

    Raises:
        ValueError: if the forward pass fails, or returns anything but a tensor `[2, classes]`.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    images = torch.zeros(2, channels, *size, device=device)
    try:
        with torch.no_grad():
            output = copy.deepcopy(module).train()(images)
    except Exception as error:  # other people's code may raise anything
        raise ValueError(
            f"{name} does not take images of {channels} x {size[0]} x {size[1]} in training: {reason(error)}. See its"
            " options, or resize the images (pixels)"
        ) from error
    if not isinstance(output, Tensor) or output.shape != (2, classes):
        returned = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"{name} must return one score per class, [2, {classes}] for two images, not {returned}: see its options"
        )
