"""Parameters and buffers in a safetensors file with their digest, and loading them into a model."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from noiseless.files.atomic import write_bytes
from noiseless.files.checkpoint import digest
from noiseless.files.heads import DAMAGED
from noiseless.files.published import read_state
from noiseless.files.untrusted import looks_pickled
from noiseless.plain import open_file

SEAL = "sha256"
"""key in the file's metadata under which it holds the digest of its tensors"""

REAL = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
"""dtypes of real numbers, which are cast into each other"""


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
    if path.is_dir():
        raise ValueError(f"{path} is a directory: give the file in it, such as {path / 'model.safetensors'}")
    try:
        open_file(path).close()
        with safetensors.safe_open(path, framework="pt") as file:
            seal = (file.metadata() or {}).get(SEAL)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except DAMAGED as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(f"{path} cannot be read as a safetensors file: {cause}") from None
    if sealed and seal is None:
        raise ValueError(f"{path} has no digest in it: it is not the file that a run wrote; restore it from a copy")
    if seal is not None and seal != digest(state):
        raise ValueError(f"{path} is damaged: its content does not fit the digest in it; restore it from a copy")
    return state


def load_parameters(model: nn.Module, path: Path, classes: int | None = None) -> list[str]:
    """Loads parameters and buffers from a file into a model; the content of the file tells its format.

    Args:
        model: to fill.
        path: of a safetensors file, a published checkpoint, or a state dict saved by `torch.save`.
        classes: see `adapted`.

    Returns:
        What was left as it was, a message each.

    Raises:
        ValueError: if the file cannot be read, if its names or shapes are not the model's, or if a number is not
            finite.
    """
    if path.is_file() and looks_pickled(path):
        state, notes = adapted(model, read_state(path), classes)
        fill(model, state, path)
        return notes
    state, notes = adapted(model, read_parameters(path, sealed=False), classes)
    refuse_other_model(model, state, path)  # first: what is not of this model need not be numbers
    for name, tensor in state.items():
        if tensor.dtype in REAL and not tensor.isfinite().all():
            raise ValueError(f"{path}: {name} holds NaN or infinity")
    fill(model, state, path)
    return notes


def adapted(model: nn.Module, state: dict[str, Tensor], classes: int | None) -> tuple[dict[str, Tensor], list[str]]:
    """A state in which the last layer, if it is of another number of classes, is replaced by the model's.

    Of the last layer are the tensors that have as many rows as the model has classes, another number of rows in the
    state, and nothing else that differs. Counters of batch norm that the state lacks, as files from before they existed
    do, are the model's, too, as torch has it.

    Args:
        model: that is to be filled.
        state: tensors by state name.
        classes: outputs of the model; None: the last layer must be of the same size.

    Returns:
        The state, and a message about the last layer if it was replaced.
    """
    here = model.state_dict()
    lacking = {name: tensor for name, tensor in here.items() if name.endswith("num_batches_tracked")}
    state = lacking | state
    head = {
        name: tensor
        for name, tensor in here.items()
        if name in state
        and tensor.ndim
        and state[name].ndim == tensor.ndim
        and len(tensor) == classes != len(state[name])
        and state[name].shape[1:] == tensor.shape[1:]
    }
    if not head or len({len(state[name]) for name in head}) > 1:
        return state, []
    shapes = [f"{name} ({list(state[name].shape)} there, {list(tensor.shape)} here)" for name, tensor in head.items()]
    note = f"the last layer is of another number of classes, so its initial values are new: {', '.join(shapes)}"
    return state | head, [note]


def fill(model: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Copies a state into a model.

    Args:
        model: to fill.
        state: tensors by state name.
        source: where the state comes from, for errors.

    Raises:
        ValueError: if names or shapes are not the model's, or if a dtype is none that its numbers can be cast from.
    """
    refuse_other_model(model, state, source)
    model.load_state_dict(state)


def refuse_other_model(model: nn.Module, state: dict[str, Tensor], source: object) -> None:
    """Raises unless a state has the names and shapes of a model's state.

    Raises:
        ValueError: naming what differs. Real numbers of other dtypes are no difference: they are cast.
    """
    names = model.state_dict().keys()
    missing, unknown = sorted(names - state.keys()), sorted(state.keys() - names)
    if missing or unknown:
        raise ValueError(f"{source} is not of this model: {_some('missing', missing)}{_some('unknown', unknown)}")
    for name, tensor in model.state_dict().items():
        if state[name].shape != tensor.shape:
            raise ValueError(
                f"{source}: {name} has shape {list(state[name].shape)}, this model's has {list(tensor.shape)}"
            )
        if state[name].dtype != tensor.dtype and not {state[name].dtype, tensor.dtype} <= REAL:
            raise ValueError(
                f"{source}: {name} has dtype {_dtype(state[name])}, which this model's {_dtype(tensor)} cannot hold:"
                " save it with that dtype"
            )


def _dtype(tensor: Tensor) -> str:
    """The name of a tensor's dtype."""
    return str(tensor.dtype).removeprefix("torch.")


def _some(what: str, names: list[str]) -> str:
    """A sentence with the first four names and how many more there are; empty without names."""
    return f"{what} {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}. " if names else ""
