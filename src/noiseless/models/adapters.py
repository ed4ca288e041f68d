"""Models from elsewhere: torchvision's, timm's (an optional extra), and functions of one's own.

They are made without pretrained weights, from random numbers that the caller has keyed, and have no choices of form:
what is to be changed in them goes through options. With the images' size known, a copy is asked once, so that a model
that does not take such images is refused before a run begins.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from noiseless.errors import UnknownNameError
from noiseless.models.family import ask_once, reason, refuse_form, refuse_options
from noiseless.models.form import Form

PLACES = ("torchvision:NAME", "timm:NAME", "package.module:function")
_RESERVED = {
    **dict.fromkeys(
        ("weights", "weights_backbone", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict",
         "checkpoint_path", "cache_dir"),
        "initial parameters are drawn from the seed, or come from a file of tensors (init)",
    ),
    **dict.fromkeys(("num_classes", "in_chans", "channels", "classes"), "the data give it"),
}  # fmt: skip
_NAMED = 12
"""names that an error about one of hundreds lists"""


def build(
    name: str, channels: int, classes: int, form: Form, options: Mapping[str, Any], size: tuple[int, int] | None
) -> nn.Module:
    """A model from elsewhere.

    Args:
        name: `torchvision:NAME`, `timm:NAME` or `package.module:function`.
        channels: of the images.
        classes: outputs.
        form: the default one.
        options: further arguments.
        size: of the images, `(H, W)`; None: the model is not asked whether it takes them.

    Returns:
        The model.

    Raises:
        ValueError: for another form, an option that is given by the data, or images that the model does not take.
    """
    refuse_form(name, form, {}, "a model from elsewhere has options only")
    for option in options:
        if option in _RESERVED:
            raise ValueError(f"{name} is built without the option {option}: {_RESERVED[option]}")
    place, _, rest = name.partition(":")
    if place == "torchvision":
        module = _torchvision(rest, channels, classes, options)
    elif place == "timm":
        module = _timm(rest, channels, classes, options)
    else:
        module = _own(place, rest, channels, classes, options)
    if size is not None:
        ask_once(name, module, channels, classes, size)
    return module


def _torchvision(name: str, channels: int, classes: int, options: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownNameError("torchvision model", name, _nearest(name, known, "torchvision.models.list_models()"))

    def make(**given: Any) -> nn.Module:
        return models.get_model(name, weights=None, num_classes=classes, **given)

    return _first_convolution(f"torchvision:{name}", _with_options(f"torchvision:{name}", make, options), channels)


def _timm(name: str, channels: int, classes: int, options: Mapping[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ValueError("timm: models need the package timm: pip install noiseless[timm]") from None
    if not timm.is_model(name):
        raise UnknownNameError("timm model", name, _nearest(name, timm.list_models(), "timm.list_models()"))

    def make(**given: Any) -> nn.Module:
        # exportable: torch's own activations and attention in elementary steps, which are differentiable twice
        return timm.create_model(
            name, pretrained=False, exportable=True, in_chans=channels, num_classes=classes, **given
        )

    return _with_options(f"timm:{name}", make, options)


def _own(module: str, function: str, channels: int, classes: int, options: Mapping[str, Any]) -> nn.Module:
    name = f"{module}:{function}"
    make = _import(module, function)
    try:
        inspect.signature(make).bind(channels=channels, classes=classes, **options)
    except TypeError as error:
        raise ValueError(
            f"{name}{inspect.signature(make)} cannot be called with"
            f" {', '.join(['channels', 'classes', *options])}: {error}"
        ) from None
    try:
        model = make(channels=channels, classes=classes, **options)
    except Exception as error:
        raise ValueError(f"{name} has failed: {reason(error)} ({_where(error)})") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} gave a value of type {type(model).__name__}; it must give a torch.nn.Module")
    if lazy := [parameter for parameter, value in model.named_parameters() if is_lazy(value)]:
        raise ValueError(f"{name} gave a model with lazy layers ({', '.join(lazy[:3])}): give them their sizes")
    return model


def _where(error: BaseException) -> str:
    """File and line that an error comes from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}, line {last.lineno}"


def _import(module: str, function: str) -> Callable[..., Any]:
    """The function, from a module that is installed or lies in the current directory."""
    if not all(part.isidentifier() for part in (*module.split("."), *function.split("."))):
        raise ValueError(
            f"{module}:{function} is no name of a function; write package.module:function, or one of {PLACES[0]} and"
            f" {PLACES[1]}"
        )
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    try:
        target: Any = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the module {module} cannot be imported ({error}); searched in {here} and Python's path"
        ) from error
    except Exception as error:
        raise ValueError(f"the module {module} cannot be imported: {reason(error)} ({_where(error)})") from error
    for part in function.split("."):
        if not hasattr(target, part):
            public = [key for key, value in vars(target).items() if callable(value) and not key.startswith("_")]
            raise UnknownNameError(f"function of {module}", function, public)
        target = getattr(target, part)
    if not callable(target):
        raise ValueError(
            f"{module}:{function} is of type {type(target).__name__}; it must be a function that gives a module"
        )
    return target


def _with_options(name: str, make: Callable[..., nn.Module], options: Mapping[str, Any]) -> nn.Module:
    """The model, or an error that names the options that it takes."""
    try:
        return make(**options)
    except Exception as error:
        if not options:
            raise ValueError(f"{name} cannot be made: {reason(error)}") from error
        if isinstance(error, TypeError):  # one that it does not know, perhaps
            with torch.device("meta"):
                takes = inspect.signature(type(make())).parameters
            refuse_options(name, options, [key for key in takes if key not in {*_RESERVED, "kwargs"}])
        raise ValueError(f"{name} cannot be made with {dict(options)}: {reason(error)}") from error


def _first_convolution(name: str, module: nn.Module, channels: int) -> nn.Module:
    """Fits a model for 3 channels to others.

    The new weights are the drawn ones of the channels that there are, times `sqrt(3 / channels)`, which keeps the
    variance of what comes out.

    Returns:
        The model, changed.

    Raises:
        ValueError: if its first convolution is not for 3 channels.
    """
    if channels == 3:
        return module
    old = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    if old is None or old.in_channels != 3 or old.groups != 1:
        raise ValueError(f"{name} is made for images of 3 channels, and these have {channels}")
    with torch.no_grad():
        weight = old.weight[:, torch.arange(channels, device=old.weight.device) % 3] * (3 / channels) ** 0.5
    old.weight, old.in_channels = nn.Parameter(weight), channels
    return module


def _nearest(name: str, known: Iterable[str], where: str) -> list[str]:
    """The names that an error shows of the many that there are."""
    known = list(known)
    return [*difflib.get_close_matches(name, known, n=_NAMED, cutoff=0.3), f"... {where} names all {len(known)}"]
