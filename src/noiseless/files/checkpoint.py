"""Checkpoints: safetensors for the tensors, JSON for the rest, each with a hash. Nothing is unpickled.

A checkpoint is two files, `step-N.safetensors` and `step-N.json`. The second is written last and holds the hashes of
both, so a checkpoint that is incomplete or damaged is recognised, and the one before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from noiseless.files.atomic import sha256, write_bytes, write_json
from noiseless.files.heads import DAMAGED, damage, head, newest_first, number, tensors_of, whole
from noiseless.plain import sealed

State = dict[str, Any]
"""nested dicts, lists and tuples of tensors, numbers, strings and None"""


@dataclass(frozen=True)
class Newest:
    """The newest undamaged checkpoint of a directory."""

    step: int
    """number of steps done"""
    state: State
    damaged: list[str]
    """what is wrong with each newer checkpoint"""


def save(directory: Path, step: int, state: State, keep: int, every: int | None = None, ended: bool = False) -> None:
    """Writes a checkpoint, then removes older ones, but not the newest `keep` and those of every `every`-th step.

    Damaged ones do not count as kept. Newer ones are left to be written again: a run that goes on from an older
    checkpoint has found them damaged.

    Args:
        directory: of the checkpoints.
        step: number of steps done.
        state: to write.
        keep: number of newest checkpoints to keep, this one counted.
        every: steps between further checkpoints to keep; None: there are none.
        ended: whether the run ends with this state.
    """
    tensors: dict[str, Tensor] = {}
    described = _describe(state, tensors, "")
    content = safetensors.torch.save(tensors)
    stem = directory / f"step-{step:08d}"
    write_bytes(stem.with_suffix(".safetensors"), content)
    record = {"step": step, "ended": ended, "tensors_sha256": sha256(content), "digests": digests(state)}
    record["state"] = described
    write_json(stem.with_suffix(".json"), sealed(record))
    older = [path for path in newest_first(directory) if number(path) < step]
    kept = 1
    for path in older if len(older) >= keep else ():
        if kept < keep and whole(path):
            kept += 1
        elif every is None or number(path) % every:
            path.unlink(missing_ok=True)
            path.with_suffix(".safetensors").unlink(missing_ok=True)


def at(directory: Path, step: int, check: Callable[[State], None] = lambda state: None) -> State | None:
    """The state in the checkpoint after that number of steps.

    Args:
        directory: of the checkpoints.
        step: number of steps done.
        check: see `newest`.

    Returns:
        The state; None if there is no such checkpoint.

    Raises:
        ValueError: if the checkpoint is damaged.
    """
    path = directory / f"step-{step:08d}.json"
    return read(path, check)[1] if path.exists() else None


def newest(directory: Path, check: Callable[[State], None] = lambda state: None) -> Newest | None:
    """Reads the newest undamaged checkpoint of a directory.

    Args:
        directory: of the checkpoints.
        check: raises `ValueError` for a state that is taken for damaged.

    Returns:
        The checkpoint; None if the directory has none, damaged or not.

    Raises:
        ValueError: if there are checkpoints, but all are damaged.
    """
    damaged: list[str] = []
    for path in newest_first(directory):
        try:
            step, state = read(path, check)
        except ValueError as error:
            damaged.append(str(error))
        else:
            return Newest(step, state, damaged)
    if damaged:
        raise ValueError(f"all checkpoints in {directory} are damaged: {'; '.join(damaged)}")
    return None


def read(path: Path, check: Callable[[State], None] = lambda state: None) -> tuple[int, State]:
    """Reads one checkpoint.

    Args:
        path: of its JSON file.
        check: see `newest`.

    Returns:
        Its step and state.

    Raises:
        ValueError: if it is not a checkpoint, or is damaged.
    """
    described = head(path)
    try:
        tensors = safetensors.torch.load(tensors_of(path, described))
        state: State = _restore(described.state, tensors)
        check(state)
        return described.step, state
    except DAMAGED as error:
        raise ValueError(damage(path, error)) from None


def digests(state: State) -> dict[str, str]:
    """The digests of parameters and buffers, `model`, and of their `average` if there is one."""
    return {name: digest(state[name]) for name in ("model", "average") if state.get(name) is not None}


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of tensors, in the order of their names."""
    parts = []
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        parts.append(f"{name} {t.dtype} {list(t.shape)}\n".encode() + t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256(b"".join(parts))


def _describe(value: Any, tensors: dict[str, Tensor], key: str) -> Any:
    """The value as JSON can hold it; tensors are moved to `tensors`, under their path in the value."""
    if isinstance(value, Tensor):
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, dict):
        items = [[k, _describe(v, tensors, f"{key}/{k}")] for k, v in value.items()]
        return {"dict": items}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_describe(v, tensors, f"{key}/{k}") for k, v in enumerate(value)]}
    assert value is None or isinstance(value, (bool, int, float, str)), f"{key}: {type(value)}"
    return value


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that `_describe` was called with."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: _restore(v, tensors) for k, v in content}
    parts = [_restore(v, tensors) for v in content]
    return tuple(parts) if kind == "tuple" else parts
