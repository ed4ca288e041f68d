"""Models in a directory that others can load: parameters, what they are of, and a card. After the last step of a run.

`save_pretrained` writes three files: `model.safetensors` (sealed with its digest), `config.json` (what
`from_pretrained` builds the module from) and `README.md`, a card as model hubs show it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from noiseless import models
from noiseless.exchange.card import plain_card
from noiseless.exchange.description import Description, description_of
from noiseless.exchange.recognise import classes_of
from noiseless.files.atomic import write_bytes, write_json
from noiseless.files.checkpoint import digest
from noiseless.files.directory import RunDirectory
from noiseless.files.parameters import fill, read_parameters, write_parameters

PARAMETERS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
VERSION = 1
"""of the format of `config.json`"""


def save_pretrained(model: nn.Module, directory: Path | str, description: Description, card: str | None = None) -> str:
    """Writes a model so that `from_pretrained` gives it back to the bit.

    Args:
        model: of the library, in any mode and on any device.
        directory: new or empty.
        description: of the model.
        card: text of its README.md; None: one that says what the description does.

    Returns:
        SHA-256 over the parameters and buffers.

    Raises:
        ValueError: if the description is not the model's, or the directory holds something.
    """
    directory = Path(directory)
    fill(description.build(), model.state_dict(), directory)
    kinds = {t.dtype for t in model.state_dict().values() if t.is_floating_point()}
    if len(kinds) > 1:
        raise ValueError(f"the model has parameters of several dtypes, {', '.join(sorted(map(str, kinds)))}")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory} is not an empty directory: choose another")
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    sha256 = digest(state)
    described = asdict(description) | {"dtype": str(kinds.pop()).removeprefix("torch.")}
    write_parameters(directory / PARAMETERS, state)
    write_bytes(directory / CARD, (card or plain_card(description, sha256)).encode())
    # last: without it the directory is none of these
    write_json(directory / CONFIG, {"library": "noiseless", "version": VERSION, "sha256": sha256, **described})
    return sha256


def from_pretrained(directory: Path | str) -> nn.Module:
    """The model that `save_pretrained` or `noiseless export` has written.

    Args:
        directory: of its files.

    Returns:
        The module, in evaluation mode, on the CPU. Its images are normalised as `describe(directory).normalise` does.

    Raises:
        ValueError: if the directory is no such one, or damaged.
    """
    directory = Path(directory)
    config = _config(directory)
    description = _description(config, directory)
    state = read_parameters(directory / PARAMETERS, sealed=True)
    if digest(state) != config["sha256"]:
        raise ValueError(f"{directory / PARAMETERS} is not the one that {CONFIG} beside it was written for")
    model = description.build().to(getattr(torch, config["dtype"]))
    fill(model, state, directory / PARAMETERS)
    return model.eval()


def from_run(directory: Path | str) -> nn.Module:
    """The model of a run, at its end or at its newest checkpoint.

    Args:
        directory: of the run.

    Returns:
        The module, in evaluation mode, on the CPU.

    Raises:
        ValueError: if it is no run, has no checkpoint, or is damaged.
    """
    run = RunDirectory.open(Path(directory))
    recipe, state = run.config().recipe, run.state()
    classes = classes_of(state, lambda classes: description_of(recipe, classes).build())
    model = description_of(recipe, classes).build().to(getattr(torch, recipe.model.dtype))
    fill(model, state, run.path)
    return model.eval()


def describe(directory: Path | str) -> Description:
    """The description of a model that `save_pretrained` has written.

    Args:
        directory: of its files.

    Returns:
        What the model is, and what its images must be like.
    """
    return _description(_config(Path(directory)), Path(directory))


def _config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(
            f"{directory} holds no model: it has no {CONFIG}. Give a directory that noiseless export or"
            " save_pretrained has written"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict) or config.get("library") != "noiseless":
        raise ValueError(f"{path} is of another library: noiseless export or save_pretrained has not written it")
    if config.get("version") != VERSION:
        raise ValueError(f"{path} has version {config.get('version')!r}, and this program reads {VERSION}")
    return config


def _description(config: dict[str, Any], directory: Path) -> Description:
    known = {f.name for f in fields(Description)}
    given = {name: value for name, value in config.items() if name in known}
    wrong = (known | {"library", "version", "sha256", "dtype"}) ^ config.keys()
    try:
        if wrong:
            raise ValueError(f"{', '.join(sorted(wrong))} missing or unknown")
        if config["dtype"] not in ("float32", "float64"):
            raise ValueError(f"dtype {config['dtype']!r}")
        if not all(type(given[name]) is int and given[name] > 0 for name in ("channels", "classes")):
            raise ValueError("channels and classes must be positive whole numbers")
        for name in ("mean", "std"):
            values = given[name]
            if values is not None and (not isinstance(values, list) or len(values) != given["channels"]):
                raise ValueError(f"{name} must have a number for each channel")
        if not isinstance(given["model"], str) or not isinstance(given["options"], dict):
            raise ValueError("model must be a name and options must have names")
        return Description(**{**given, "form": models.Form(**given["form"])})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{directory / CONFIG} is damaged or of another version: {error}") from None
