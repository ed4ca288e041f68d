"""Models in a directory that others can load: parameters, description and card. After the last step of a run.

`save_pretrained` writes three files: `model.safetensors` (with the digest of its tensors), `config.json` (from which
`from_pretrained` builds the module) and `README.md`, the model card for model hubs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from noiseless import models
from noiseless.exchange.card import plain_card
from noiseless.exchange.description import Description, description_of
from noiseless.exchange.recognise import classes_of
from noiseless.files.atomic import TEMPORARY, write_bytes, write_json
from noiseless.files.checkpoint import digest
from noiseless.files.directory import RunDirectory
from noiseless.files.parameters import adapted, fill, read_parameters, write_parameters
from noiseless.plain import parse, read_file
from noiseless.screen import print_note
from noiseless.trust import trusting

PARAMETERS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FILES = (PARAMETERS, CONFIG, CARD)
UNFINISHED = ".unfinished"
"""empty file that is in a directory until all three are written"""
VERSION = 1
"""version of the format of `config.json`"""


def save_pretrained(model: nn.Module, directory: Path | str, description: Description, card: str | None = None) -> str:
    """Writes a model so that `from_pretrained` gives it back, bit by bit.

    Args:
        model: of this library, in any mode and on any device.
        directory: new or empty, or one in which an earlier call was killed.
        description: of the model.
        card: text of the README.md; None: a card made from the description.

    Returns:
        SHA-256 of the parameters and buffers.

    Raises:
        ValueError: if the description does not fit the model, or if the directory is not empty.
    """
    directory = Path(directory)
    fill(description.build(), model.state_dict(), directory)
    kinds = {t.dtype for t in model.state_dict().values() if t.is_floating_point()}
    if len(kinds) > 1:
        raise ValueError(f"the model has parameters of several dtypes, {', '.join(sorted(map(str, kinds)))}")
    _begin(directory)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    sha256 = digest(state)
    described = _written(description) | {"dtype": str(kinds.pop()).removeprefix("torch.")}
    write_parameters(directory / PARAMETERS, state)
    write_bytes(directory / CARD, (card or plain_card(description, sha256)).encode())
    # written last, because a directory without it is not loaded
    write_json(directory / CONFIG, {"library": "noiseless", "version": VERSION, "sha256": sha256, **described})
    (directory / UNFINISHED).unlink()
    return sha256


def _written(description: Description) -> dict[str, Any]:
    """What `config.json` says of a model; the size of the images only where the model is built for one."""
    values = asdict(description)
    return {name: value for name, value in values.items() if name != "size" or value is not None}


def _begin(directory: Path) -> None:
    """Makes a directory for a model, or clears what a killed call has left in it; raises if it holds other files."""
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    temporary = {name for name in names if (parts := TEMPORARY.fullmatch(name)) and parts["name"] in FILES}
    unfinished = UNFINISHED in names and names <= {UNFINISHED, *FILES, *temporary}
    if (names and not unfinished) or (directory.exists() and not directory.is_dir()):
        raise ValueError(f"{directory} is not an empty directory: choose another")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / UNFINISHED).touch()
    for name in names - {UNFINISHED}:
        (directory / name).unlink(missing_ok=True)


def from_pretrained(
    directory: Path | str, trust: str | Iterable[str] | None = None, classes: int | None = None
) -> nn.Module:
    """The model that `save_pretrained` or `noiseless export` has written.

    Args:
        directory: of its files.
        trust: a function of your own that may build the model, `package.module:function` or `package.module`, one or
            several; None: those of your settings, see `noiseless trust`. Its code runs; the files themselves are data.
        classes: number of outputs, to fine-tune the model; where it is another one than the model's, the last layer has
            new initial values, and a message names its tensors. None: as it was written.

    Returns:
        The module, in evaluation mode, on the CPU. It expects images normalised by `describe(directory).normalise`.

    Raises:
        ValueError: if the directory is not such a directory, is damaged, or names code that is not trusted.
    """
    directory = Path(directory)
    config = _config(directory)
    description = _description(config, directory)
    state = _state(config, directory)
    inputs = description.channels * math.prod(description.size or (1,))
    if max(inputs, description.classes) > max((n for t in state.values() for n in t.shape), default=0):
        raise ValueError(
            f"{directory / CONFIG} describes a model of {inputs} {'inputs' if description.size else 'channels'} and"
            f" {description.classes} classes, which {PARAMETERS} beside it cannot hold: restore both from a copy"
        )
    with trusting(trust):
        model = replace(description, classes=classes or description.classes).build().to(getattr(torch, config["dtype"]))
    state, notes = adapted(model, state, classes)
    for note in notes:
        print_note(note)
    fill(model, state, directory / PARAMETERS)
    return model.eval()


def from_run(directory: Path | str, trust: str | Iterable[str] | None = None) -> nn.Module:
    """The model of a run, at its end or at its newest checkpoint.

    Args:
        directory: of the run.
        trust: see `from_pretrained`.

    Returns:
        The module, in evaluation mode, on the CPU.

    Raises:
        ValueError: if the directory is not a run, has no checkpoint, is damaged, or names code that is not trusted.
    """
    run = RunDirectory.open(Path(directory))
    recipe, state = run.config().recipe, run.state()
    with trusting(trust):
        # the linear model depends on the number of pixels only, which its matrix [classes, channels * pixels] has
        pixels = state["fc.weight"].shape[-1] // len(recipe.data.mean or (0,)) if "fc.weight" in state else 1
        classes = classes_of(state, lambda classes: description_of(recipe, classes, (pixels, 1)).build())
        model = description_of(recipe, classes, (pixels, 1)).build().to(getattr(torch, recipe.model.dtype))
    fill(model, state, run.path)
    return model.eval()


def describe(directory: Path | str) -> Description:
    """The description of a model that `save_pretrained` has written.

    Args:
        directory: of its files.

    Returns:
        The description.
    """
    return _description(_config(Path(directory)), Path(directory))


def check_pretrained(directory: Path) -> None:
    """Raises unless a directory has all files of a saved model, with the parameters that its config names."""
    config = _config(directory)
    _description(config, directory)
    _state(config, directory)
    if not (directory / CARD).is_file():
        raise ValueError(f"{directory} has no {CARD}, the model card: write the model again with save_pretrained")


def _state(config: dict[str, Any], directory: Path) -> dict[str, torch.Tensor]:
    """The parameters beside a config, compared with their digest."""
    state = read_parameters(directory / PARAMETERS, sealed=True)
    if digest(state) != config["sha256"]:
        raise ValueError(
            f"{directory / PARAMETERS} does not belong to the {CONFIG} beside it, which names another digest: restore"
            " both from a copy"
        )
    return state


def _config(directory: Path) -> dict[str, Any]:
    """The content of `config.json`, checked for library and version."""
    path = directory / CONFIG
    try:
        config = parse(read_file(path))
    except FileNotFoundError:
        raise ValueError(
            f"{directory} holds no model: it has no {CONFIG}. Give a directory that noiseless export or"
            " save_pretrained has written"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict) or config.get("library") != "noiseless":
        raise ValueError(f"{path} is of another library: it was not written by noiseless export or save_pretrained")
    if config.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {config.get('version')!r}, but this program reads version {VERSION}: use the version"
            " of noiseless that wrote it"
        )
    return config


def _description(config: dict[str, Any], directory: Path) -> Description:
    """The description in the content of `config.json`, checked."""
    names = {f.name for f in fields(Description)}
    arguments = {name: value for name, value in config.items() if name in names}
    wrong = (names | {"library", "version", "sha256", "dtype"}) ^ (config.keys() | {"size"})
    try:
        if wrong:
            raise ValueError(f"{', '.join(sorted(wrong))} missing or unknown")
        if config["dtype"] not in ("float32", "float64"):
            raise ValueError(f"dtype must be float32 or float64, not {config['dtype']!r}")
        if not all(type(arguments[name]) is int and arguments[name] > 0 for name in ("channels", "classes")):
            raise ValueError("channels and classes must be positive whole numbers")
        for name in ("mean", "std"):
            values = arguments[name]
            numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
            if values is not None and not (numbers and len(values) == arguments["channels"]):
                raise ValueError(f"{name} must have a number for each channel")
        if not isinstance(arguments["model"], str) or not isinstance(arguments["options"], dict):
            raise ValueError("model must be a name and options must have names")
        size = arguments.get("size")
        if size is not None:
            if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)):
                raise ValueError("size must be the height and width of images")
            arguments["size"] = tuple(size)
        return Description(**{**arguments, "form": models.Form(**arguments["form"])})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{directory / CONFIG} is damaged or of another version: {error}") from None
