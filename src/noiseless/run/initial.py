"""The initial parameters of a run: from a file, a run, or the weights that torchvision or timm publish for a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from noiseless.files import reading, stored
from noiseless.files.address import StateAddress
from noiseless.files.parameters import adapted, fill, load_parameters, read_parameters
from noiseless.files.published import read_state
from noiseless.files.untrusted import looks_pickled, sha256_of
from noiseless.models import weights
from noiseless.plain import real
from noiseless.recipes.recipe import Recipe

PRETRAINED = "pretrained"
"""value of --init that stands for the weights of a library"""
EXPORTED = "model.safetensors"
"""file of the parameters in the directory of an exported model"""


def resolved(init: str) -> str:
    """The name under which a run's config holds its initial parameters: an absolute path, with the step of a run.

    Args:
        init: as the user gave it.

    Returns:
        The name.

    Raises:
        ValueError: if it is the address of a run that cannot be read.
    """
    if _pretrained(init) is not None:
        return init
    address = _address(init)
    if address is None:
        return str(real(Path(init)))
    step = address.step
    if step is None:
        end = address.directory.end()
        steps = stored.checkpoint_steps(address.directory)
        step = end.step if end else steps[-1] if steps else None
    return str(StateAddress(type(address.directory)(real(address.directory.path)), step))


def load_initial(model: nn.Module, recipe: Recipe, options: Mapping[str, Any], classes: int) -> list[str]:
    """Loads the initial parameters and buffers of a recipe into its model.

    Args:
        model: to fill.
        recipe: resolved. Its `init` is a file, `RUN`, `RUN@STEP`, the directory of an exported model, or `pretrained`,
            which may be followed by `:` and a name of weights.
        options: further arguments of the model.
        classes: outputs of the model; the last layer may be of another number.

    Returns:
        What was left as it was, a message each.

    Raises:
        ValueError: if they cannot be read, or are not of this model.
    """
    init = recipe.model.init
    assert init is not None
    name = _pretrained(init)
    if name is not None:
        return _load_pretrained(model, recipe, name or None, options, classes)
    address = _address(init)
    if address is not None:
        there = stored.read_state(address)
        if there.model is None:
            raise ValueError(f"{address} holds no parameters: they follow from its config; choose a later step")
        state, notes = adapted(model, there.model, classes)
        fill(model, state, there.file)
        return notes
    path = Path(init)
    return load_parameters(model, path / EXPORTED if (path / EXPORTED).is_file() else path, classes)


def _address(init: str) -> StateAddress | None:
    """The run's state that a text names; None if it names none."""
    path, (run, at, _) = Path(init), init.rpartition("@")
    if path.is_file() and path.parent.name != "checkpoints":
        return None
    run_there = (path / reading.CONFIG).is_file() and (path / "environment.json").is_file()
    if run_there or (at and not path.exists() and Path(run).is_dir()) or path.parent.name == "checkpoints":
        return StateAddress.read(init)
    return None


def _pretrained(init: str) -> str | None:
    """The name of pretrained weights, empty for the default ones; None if a text names a file or a run."""
    word, _, name = init.partition(":")
    return name if word == PRETRAINED else None


def _load_pretrained(
    model: nn.Module, recipe: Recipe, name: str | None, options: Mapping[str, Any], classes: int
) -> list[str]:
    """Loads the pretrained weights of a library that are on this machine, compared with the hash that it states."""
    found = weights.find(recipe.model.name, name)
    path = found.file()
    pickled = looks_pickled(path)
    if found.sha256 is not None and not sha256_of(path).startswith(found.sha256):
        raise ValueError(
            f"{path} is damaged: its SHA-256 does not begin with {found.sha256[:16]}, which"
            f" {recipe.model.name.partition(':')[0]} states for it; remove it, and get it again"
        )
    mean, std = recipe.data.mean or (), recipe.data.std or ()
    content = read_state(path) if pickled else read_parameters(path, sealed=False)
    converted = weights.converted(found, content, model, len(mean), options)
    state, notes = adapted(model, converted, classes)
    fill(model, state, path)
    checked = f", whose SHA-256 is as stated ({found.sha256[:8]}...)" if found.sha256 else ", which states no hash"
    other = weights.normalisation(found, mean, std)
    first = f"initial parameters: the weights {found.name} of {recipe.model.name}, from {path}{checked}"
    return [first + (f"; {other}" if other else ""), *notes]
