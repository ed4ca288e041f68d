"""Models from other packages: torchvision, timm (an optional extra), and your own functions.

They are built without pretrained weights, from random numbers that the caller has keyed. They have options, but no
choices of `Form`. If the size of the images is known, a copy is tried once on blank images, so that a model that does
not take them is refused before a run begins.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from noiseless import own
from noiseless.errors import UnknownNameError, reason
from noiseless.models.family import check_forward, refuse_form, refuse_names, refuse_options
from noiseless.models.form import Form

NAME_PATTERNS = ("torchvision:NAME", "timm:NAME", own.PATTERN)
OWN = own.Kind("model", "a function that returns a module", NAME_PATTERNS[:2])
_RESERVED = {
    **dict.fromkeys(
        ("weights", "weights_backbone", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict",
         "checkpoint_path", "cache_dir"),
        "initial parameters are drawn from the seed, or come from a file of tensors (init)",
    ),
    **dict.fromkeys(("num_classes", "in_chans", "channels", "classes"), "the data give it"),
}  # fmt: skip
_SUGGESTIONS = 12
"""number of similar names that an error lists"""


def build(
    name: str, channels: int, classes: int, form: Form, options: Mapping[str, Any], size: tuple[int, int] | None
) -> nn.Module:
    """Builds a model from another package.

    Args:
        name: `torchvision:NAME`, `timm:NAME` or `package.module:function`.
        channels: of the images.
        classes: outputs.
        form: must be the default one.
        options: further arguments.
        size: of the images, `(H, W)`; None: the model is not tried on images.

    Returns:
        The model.

    Raises:
        ValueError: for another form, an option that the data or the seed determine, or images that the model does not
            take.
    """
    refuse_form(name, form, {}, "a model from another package has options only")
    for option in options:
        if option in _RESERVED:
            raise ValueError(f"{name} is built without the option {option}: {_RESERVED[option]}")
    place, _, rest = name.partition(":")
    if place in ("torchvision", "timm"):
        refuse_names(name, options)
    if place == "torchvision":
        module = _torchvision(rest, channels, classes, options)
    elif place == "timm":
        module = _timm(rest, channels, classes, options)
    else:
        module = _from_function(place, rest, channels, classes, options)
    if size is not None:
        check_forward(name, module, channels, classes, size)
    return module


def _torchvision(name: str, channels: int, classes: int, options: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownNameError("torchvision model", name, _nearest(name, known, "torchvision.models.list_models()"))

    def make(**arguments: Any) -> nn.Module:
        return models.get_model(name, weights=None, num_classes=classes, **arguments)

    return _first_convolution(f"torchvision:{name}", _with_options(f"torchvision:{name}", make, options), channels)


def _timm(name: str, channels: int, classes: int, options: Mapping[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ValueError("timm: models need the package timm: pip install noiseless[timm]") from None
    if not timm.is_model(name):
        raise UnknownNameError("timm model", name, _nearest(name, timm.list_models(), "timm.list_models()"))

    def make(**arguments: Any) -> nn.Module:
        # exportable: torch's own activations and attention in elementary steps, which are differentiable twice
        return timm.create_model(
            name, pretrained=False, exportable=True, in_chans=channels, num_classes=classes, **arguments
        )

    return _with_options(f"timm:{name}", make, options)


def _from_function(module: str, function: str, channels: int, classes: int, options: Mapping[str, Any]) -> nn.Module:
    name = f"{module}:{function}"
    make = own.imported(OWN, name)
    model = own.called(name, make, channels=channels, classes=classes, **options)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returned a value of type {type(model).__name__}; it must return a torch.nn.Module")
    if lazy := [parameter for parameter, value in model.named_parameters() if is_lazy(value)]:
        raise ValueError(f"{name} returned a model with lazy layers ({', '.join(lazy[:3])}): give them their sizes")
    return model


def _with_options(name: str, make: Callable[..., nn.Module], options: Mapping[str, Any]) -> nn.Module:
    """Builds a model with its options; an error names the options that it takes."""
    try:
        return make(**options)
    except Exception as error:
        if not options:
            raise ValueError(f"{name} cannot be built: {reason(error)}") from error
        if isinstance(error, TypeError):  # perhaps an unknown option
            with torch.device("meta"):
                accepted = inspect.signature(type(make())).parameters
            refuse_options(name, options, [key for key in accepted if key not in {*_RESERVED, "kwargs"}])
        raise ValueError(f"{name} cannot be built with {dict(options)}: {reason(error)}") from error


def _first_convolution(name: str, module: nn.Module, channels: int) -> nn.Module:
    """Changes the first convolution of a model for 3 channels to another number of channels.

    The new weights are those drawn for the 3 channels, repeated in turn and multiplied by `sqrt(3 / channels)`, which
    keeps the variance of the output.

    Returns:
        The model, changed in place.

    Raises:
        ValueError: if its first convolution is not for 3 channels.
    """
    if channels == 3:
        return module
    old = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if old is None or old.in_channels != 3 or old.groups != 1:
        raise ValueError(f"{name} takes images of 3 channels, not {channels}, and its first layer cannot be changed")
    with torch.no_grad():
        weight = old.weight[:, torch.arange(channels, device=old.weight.device) % 3] * (3 / channels) ** 0.5
    old.weight, old.in_channels = nn.Parameter(weight), channels
    return module


def _nearest(name: str, known: Iterable[str], where: str) -> list[str]:
    """The known names that are similar to an unknown one, and where to find all of them."""
    known = list(known)
    return [*difflib.get_close_matches(name, known, n=_SUGGESTIONS, cutoff=0.3), f"... {where} names all {len(known)}"]
