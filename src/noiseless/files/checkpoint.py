"""Checkpoints: safetensors for the tensors, JSON for the rest, each with a hash. Nothing is unpickled.

A checkpoint is two files, `step-N.safetensors` and `step-N.json`. The second is written last and holds the hashes of
both, so a checkpoint that is incomplete or damaged is recognised, and the one before it is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from noiseless.files.atomic import sha256, write_bytes, write_json

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


def save(directory: Path, step: int, state: State, keep: int, every: int | None = None) -> None:
    """Writes a checkpoint, then removes old ones: all but the newest `keep` and those of every `every`-th step."""
    tensors: dict[str, Tensor] = {}
    described = _describe(state, tensors, "")
    content = safetensors.torch.save(tensors)
    stem = directory / f"step-{step:08d}"
    write_bytes(stem.with_suffix(".safetensors"), content)
    record = {"step": step, "tensors_sha256": sha256(content), "state": described}
    write_json(stem.with_suffix(".json"), record | {"sha256": _hash(record)})
    for old in sorted(directory.glob("step-*.json"), reverse=True)[keep:]:
        if every is None or number(old) % every:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)


def number(path: Path) -> int:
    """The number of steps done at a checkpoint, from the name of either of its files."""
    return int(path.stem.removeprefix("step-"))


def at(directory: Path, step: int) -> State | None:
    """The state in the checkpoint after that number of steps.

    Returns:
        The state; None if there is no such checkpoint.

    Raises:
        ValueError: if the checkpoint is damaged.
    """
    path = directory / f"step-{step:08d}.json"
    return read(path)[1] if path.exists() else None


def newest(directory: Path) -> Newest | None:
    """Reads the newest undamaged checkpoint of a directory.

    Returns:
        The checkpoint; None if the directory has none, damaged or not.

    Raises:
        ValueError: if there are checkpoints, but all are damaged.
    """
    damaged: list[str] = []
    # either file counts: one alone is a damaged checkpoint
    stems = {path.with_suffix("") for path in directory.glob("step-*")}
    for path in sorted((stem.with_suffix(".json") for stem in stems), reverse=True):
        try:
            step, state = read(path)
        except ValueError as error:
            damaged.append(str(error))
        else:
            return Newest(step, state, damaged)
    if damaged:
        raise ValueError(f"all checkpoints in {directory} are damaged: {'; '.join(damaged)}")
    return None


def read(path: Path) -> tuple[int, State]:
    """Reads one checkpoint, from the path of its JSON file.

    Returns:
        Its step and state.

    Raises:
        ValueError: if it is not a checkpoint, or is damaged.
    """
    try:
        record = json.loads(path.read_bytes())
        recorded_hash = record.pop("sha256")
        if recorded_hash != _hash(record):
            raise ValueError("its hash does not fit its content")
        content = path.with_suffix(".safetensors").read_bytes()
        if sha256(content) != record["tensors_sha256"]:
            raise ValueError(f"the hash of {path.with_suffix('.safetensors').name} does not fit its content")
        return int(record["step"]), _restore(record["state"], safetensors.torch.load(content))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is damaged or not a checkpoint ({error})") from None


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of tensors, in the order of their names."""
    parts = []
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        parts.append(f"{name} {t.dtype} {list(t.shape)}\n".encode() + t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256(b"".join(parts))


def _hash(record: dict[str, Any]) -> str:
    """SHA-256 of a checkpoint's JSON record, without the field that holds this hash."""
    return sha256(json.dumps(record, sort_keys=True).encode())


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
