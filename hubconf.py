"""Entry points of torch.hub: the models by name, and models that a run or an export has left.

From a checkout, installed or not: `torch.hub.load("path/of/the/checkout", "resnet18", source="local")`. Where the code
is on GitHub, `torch.hub.list` and `torch.hub.help` show the others. There are no hosted weights: `pretrained` is the
path of a file of one's own.
"""

from __future__ import annotations

import sys as _sys
from collections.abc import Callable as _Callable
from pathlib import Path as _Path
from typing import Any as _Any

_sys.path.insert(0, str(_Path(__file__).parent / "src"))  # the checkout need not be installed

from torch import nn as _nn

from noiseless import models as _models
from noiseless.exchange import pretrained as _pretrained
from noiseless.files.parameters import load_parameters as _load_parameters

dependencies = ["numpy", "safetensors", "torch"]


def model(
    name: str,
    pretrained: str | _Path | bool | None = None,
    channels: int = 3,
    classes: int = 10,
    seed: int = 0,
    options: dict[str, _Any] | None = None,
    trust: str | None = None,
    **form: _Any,
) -> _nn.Module:
    """A model by name, with initial parameters or those of a file.

    Args:
        name: what `noiseless train --model` takes.
        pretrained: path of a safetensors file, of a state that torch.save has written, or of a published checkpoint;
            None: initial parameters. No weights are hosted, so it is no URL and not True.
        channels: of the images.
        classes: outputs.
        seed: keys the initial parameters.
        options: further arguments of the model.
        trust: a function of your own that may be used, `package.module:function`.
        form: norm, stem, shortcut, padding_mode, convolution, zero_init.

    Returns:
        The module, on the CPU: in evaluation mode where it is pretrained, in training mode where not.

    Raises:
        ValueError: for a name or form that there is not, or a file that is not of this model.
    """
    try:
        chosen = _models.Form(**form)
    except TypeError:
        known = ", ".join(_models.Form.__dataclass_fields__)
        raise ValueError(f"unknown {', '.join(form)}; the form of a model has {known}") from None
    made = _models.build(name, channels, classes, chosen, seed, options, trust=trust)
    if not pretrained:
        return made
    if isinstance(pretrained, bool) or "://" in str(pretrained):
        raise ValueError(
            f"no weights are hosted for {name}: pretrained must be the path of a file that is here, not {pretrained!r}"
        )
    _load_parameters(made, _Path(pretrained))
    return made.eval()


def from_pretrained(directory: str, trust: str | None = None) -> _nn.Module:
    """The model in a directory that `noiseless export` or `save_pretrained` has written, in evaluation mode."""
    return _pretrained.from_pretrained(directory, trust)


def from_run(directory: str, trust: str | None = None) -> _nn.Module:
    """The model of a run of `noiseless train`, at its end or newest checkpoint, in evaluation mode."""
    return _pretrained.from_run(directory, trust)


def _entry(name: str) -> _Callable[..., _nn.Module]:
    def entry(
        pretrained: str | _Path | bool | None = None, channels: int = 3, classes: int = 10, **others: _Any
    ) -> _nn.Module:
        return model(name, pretrained, channels, classes, **others)

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{name} for small images; the arguments are those of the entry point `model`, without the name."
    return entry


globals().update({_name: _entry(_name) for _name in _models.names() if _name.isidentifier()})
