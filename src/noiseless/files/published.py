"""Reads and checks the checkpoints that the paper's published code writes.

The file is a list `[optimizer state, model state, scheduler state, scaler state or None, step]` of `torch.save`
(arXiv 2109.14119). Model state, optimizer state and step are used; here the schedule is a function of the step, and
there is nothing to scale in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noiseless.files import untrusted

PARTS = ("optimizer", "model", "scheduler", "scaler", "step")
PARALLEL = "module."
"""prefix that torch's data-parallel wrappers add to each name"""


@dataclass(frozen=True)
class Published:
    """The parts of a published checkpoint that are used."""

    path: Path
    model: dict[str, Tensor]
    """parameters and buffers by state name, in the model's order"""
    momentum: dict[int, Tensor]
    """momentum buffers by parameter number in the model's order; parameters without one are left out"""
    settings: dict[str, Any]
    """settings of the optimizer: lr, momentum, weight_decay, nesterov, ..."""
    step: int
    """number of steps done"""


def read_published(path: Path) -> Published:
    """Reads a published checkpoint.

    Args:
        path: of the file.

    Returns:
        Its parts.

    Raises:
        ValueError: if the file cannot be read, would run code, or is not such a checkpoint.
    """
    parts = untrusted.read(path)
    if not isinstance(parts, (list, tuple)):
        raise ValueError(
            f"{path} is not a published checkpoint: it holds {_what(parts)}, not the list of {', '.join(PARTS)}."
            " To begin a run with its parameters, use noiseless train --init"
        )
    if len(parts) != len(PARTS):
        raise ValueError(
            f"{path} is not a published checkpoint: its list has {len(parts)} entries, not the {len(PARTS)} of"
            f" {', '.join(PARTS)}"
        )
    optimizer, model, _, _, step = parts
    if type(step) is not int or step < 0:
        raise ValueError(f"{path}: its step must be a whole number of at least 0, not {_what(step)}")
    state = _state(model, path)
    momentum, settings = _optimizer(optimizer, path)
    return Published(path, state, momentum, settings, step)


def read_state(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers in a file of `torch.save`: a published checkpoint, or a state dict by itself.

    Args:
        path: of the file.

    Returns:
        Tensors by state name.

    Raises:
        ValueError: if the file cannot be read, would run code, or holds neither.
    """
    content = untrusted.read(path)
    if isinstance(content, (list, tuple)) and len(content) == len(PARTS):
        content = content[PARTS.index("model")]
    return _state(content, path)


def _state(state: Any, path: Path) -> dict[str, Tensor]:
    """The checked model state, without the prefix of data-parallel wrappers."""
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path}: its model state must be tensors by name, not {_what(state)}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{path}: its model state must be tensors by name; {name!r} is {_what(tensor)}")
        _finite(name, tensor, path)
    if all(name.startswith(PARALLEL) for name in state):
        state = {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
    return {name: tensor.detach() for name, tensor in state.items()}


def _optimizer(state: Any, path: Path) -> tuple[dict[int, Tensor], dict[str, Any]]:
    """Momentum by parameter number, and settings, from the state of `torch.optim.SGD`."""
    if not isinstance(state, dict) or not {"state", "param_groups"} <= state.keys():
        raise ValueError(f"{path}: its optimizer state must be that of torch.optim, not {_what(state)}")
    groups, buffers = state["param_groups"], state["state"]
    if not isinstance(groups, list) or len(groups) != 1 or not isinstance(groups[0], dict):
        raise ValueError(
            f"{path}: its optimizer state must have one group of parameters, not {_what(groups)}. To use only its"
            " parameters: noiseless train --init"
        )
    if not isinstance(buffers, dict):
        raise ValueError(f"{path}: its optimizer state must be by parameter, not {_what(buffers)}")
    numbers = groups[0].get("params")
    if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
        raise ValueError(f"{path}: its optimizer state must number its parameters, not have {_what(numbers)}")
    momentum: dict[int, Tensor] = {}
    for place, number in enumerate(numbers):
        entry = buffers.get(number, {})
        others = sorted(map(str, entry.keys() - {"momentum_buffer"})) if isinstance(entry, dict) else [_what(entry)]
        if others:
            raise ValueError(
                f"{path}: its optimizer state has {', '.join(others)}, but only the momentum of SGD can be imported."
                " To use only its parameters: noiseless train --init"
            )
        buffer = entry.get("momentum_buffer")
        if isinstance(buffer, Tensor):
            _finite(f"the momentum of parameter {place}", buffer, path)
            momentum[place] = buffer.detach()
        elif buffer is not None:
            raise ValueError(f"{path}: the momentum of parameter {place} must be a tensor, not {_what(buffer)}")
    return momentum, {name: value for name, value in groups[0].items() if name != "params"}


def _finite(name: str, tensor: Tensor, path: Path) -> None:
    """Raises unless a tensor is dense and its numbers are finite."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"{path}: {name} must be a dense tensor, not {tensor.layout}")
    # strides of 0 can repeat a few numbers to any size
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"{path}: {name} has shape {list(tensor.shape)}, but the file holds fewer numbers")
    if tensor.is_floating_point() and tensor.element_size() > 1 and not tensor.isfinite().all():
        raise ValueError(f"{path}: {name} holds NaN or infinity")


def _what(value: Any) -> str:
    """A short description of a value, for errors."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, dict):
        keys = ", ".join(map(str, list(value)[:4]))
        return f"a dict of {keys or 'nothing'}{', ...' if len(value) > 4 else ''}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[:60] if value is None or isinstance(value, (int, float, str)) else f"a {type(value).__name__}"
