"""Parameters and buffers in a safetensors file with their digest, and loading them into a model."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from noiseless.files.atomic import write_bytes
from noiseless.files.checkpoint import digest
from noiseless.files.published import read_state
from noiseless.files.untrusted import looks_pickled
from noiseless.plainfiles import refuse_special

SEAL = "sha256"
"""key in the file's metadata under which it holds the digest of its tensors"""


def write_parameters(path: Path, state: dict[str, Tensor]) -> None:
    """Writes tensors with their digest, atomically."""
    # clone: where a model has one tensor under several names, the format needs a copy for each name
    tensors = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in state.items()}
    write_bytes(path, safetensors.torch.save(tensors, {SEAL: digest(tensors)}))


def read_parameters(path: Path, sealed: bool) -> dict[str, Tensor]:
    """Reads tensors, and compares them with the file's digest if it has one.

    Args:
        path: of the file.
        sealed: whether the file must have a digest, as files written by a run have.

    Returns:
        Tensors by state name.

    Raises:
        ValueError: if the file cannot be read, or if its digest is missing or does not fit.
    """
    refuse_special(path)
    if path.is_dir():
        raise ValueError(f"{path} is a directory: give the file in it, such as {path / 'model.safetensors'}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            seal = (file.metadata() or {}).get(SEAL)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}") from None
    if sealed and seal is None:
        raise ValueError(f"{path} has no digest in it: it is not the file that a run wrote; restore it from a copy")
    if seal is not None and seal != digest(state):
        raise ValueError(f"{path} is damaged: its content does not fit the digest in it; restore it from a copy")
    return state


def load_parameters(model: nn.Module, path: Path) -> None:
    """Loads parameters and buffers from a file into a model; the content of the file tells its format.

    Args:
        model: to fill.
        path: of a safetensors file, a published checkpoint, or a state dict saved by `torch.save`.

    Raises:
        ValueError: if the file cannot be read, if its names or shapes are not the model's, or if a number is not
            finite.
    """
    refuse_special(path)
    if path.is_file() and looks_pickled(path):
        fill(model, read_state(path), path)
        return
    state = read_parameters(path, sealed=False)
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: {name} holds NaN or infinity")
    fill(model, state, path)


def fill(model: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Copies a state into a model.

    Args:
        model: to fill.
        state: tensors by state name.
        source: where the state comes from, for errors.

    Raises:
        ValueError: if names or shapes are not the model's.
    """
    refuse_other_model(model, state, source)
    model.load_state_dict(state)


def refuse_other_model(model: nn.Module, state: dict[str, Tensor], source: object) -> None:
    """Raises unless a state has the names and shapes of a model's state.

    Raises:
        ValueError: naming what differs.
    """
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    missing, unknown = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
    if missing or unknown:
        raise ValueError(f"{source} is not of this model: {_some('missing', missing)}{_some('unknown', unknown)}")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"{source}: {name} has shape {list(state[name].shape)}, this model's has {list(shape)}")


def _some(what: str, names: list[str]) -> str:
    """A sentence with the first four names and how many more there are; empty without names."""
    return f"{what} {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}. " if names else ""
