"""The initial parameters of a run: from a file, a run, or the weights that torchvision or timm publish for a model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from noiseless.files import reading
from noiseless.files.address import StateAddress
from noiseless.files.parameters import adapted, fill, load_parameters
from noiseless.files.stored import checkpoint_steps, read_state
from noiseless.plain import real

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
    address = _address(init)
    if address is None:
        return str(real(Path(init)))
    step = address.step
    if step is None:
        end = address.directory.end()
        steps = checkpoint_steps(address.directory)
        step = end.step if end else steps[-1] if steps else None
    return str(StateAddress(type(address.directory)(real(address.directory.path)), step))


def load_initial(model: nn.Module, init: str, classes: int) -> list[str]:
    """Loads initial parameters and buffers into a model.

    Args:
        model: to fill.
        init: a file, `RUN`, `RUN@STEP`, or the directory of an exported model.
        classes: outputs of the model; the last layer may be of another number.

    Returns:
        What was left as it was, a message each.

    Raises:
        ValueError: if they cannot be read, or are not of this model.
    """
    address = _address(init)
    if address is not None:
        stored = read_state(address)
        if stored.model is None:
            raise ValueError(f"{address} holds no parameters: they follow from its config; choose a later step")
        state, notes = adapted(model, stored.model, classes)
        fill(model, state, stored.file)
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
