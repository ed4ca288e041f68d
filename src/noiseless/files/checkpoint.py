"""Checkpoints: safetensors for the tensors, JSON for the rest, each with a hash. Nothing is unpickled.

A checkpoint is two files, `step-N.safetensors` and `step-N.json`. The second names the hash of the first and its own,
and is written last: a checkpoint that was cut off or damaged is recognised, and the one before it is used.
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
class Found:
    """The newest checkpoint that is whole."""

    step: int
    state: State
    damaged: list[str]
    """what was wrong with newer ones"""


def save(directory: Path, step: int, state: State, keep: int, every: int | None = None) -> None:
    """Writes the checkpoint of a step, then removes all but the newest `keep` and each `every` steps' one."""
    tensors: dict[str, Tensor] = {}
    described = _describe(state, tensors, "")
    content = safetensors.torch.save(tensors)
    stem = directory / f"step-{step:08d}"
    write_bytes(stem.with_suffix(".safetensors"), content)
    record = {"step": step, "tensors_sha256": sha256(content), "state": described}
    write_json(stem.with_suffix(".json"), record | {"sha256": _own_hash(record)})
    for old in sorted(directory.glob("step-*.json"), reverse=True)[keep:]:
        if every is None or number(old) % every:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)


def number(path: Path) -> int:
    """The steps done at a checkpoint, by the name of either of its files."""
    return int(path.stem.removeprefix("step-"))


def at(directory: Path, step: int) -> State | None:
    """The state of one step's checkpoint.

    Returns:
        It; None where there is no such checkpoint.

    Raises:
        ValueError: if it is damaged.
    """
    path = directory / f"step-{step:08d}.json"
    return read(path)[1] if path.exists() else None


def newest(directory: Path) -> Found | None:
    """Reads the newest whole checkpoint of a directory.

    Returns:
        None where there is none at all.

    Raises:
        ValueError: if there are checkpoints, but each of them is damaged.
    """
    damaged: list[str] = []
    stems = {
        path.with_suffix("") for path in directory.glob("step-*")
    }  # of either file: one alone is half a checkpoint
    for path in sorted((stem.with_suffix(".json") for stem in stems), reverse=True):
        try:
            step, state = read(path)
        except ValueError as error:
            damaged.append(str(error))
        else:
            return Found(step, state, damaged)
    if damaged:
        raise ValueError(f"no checkpoint in {directory} is whole: {'; '.join(damaged)}")
    return None


def read(path: Path) -> tuple[int, State]:
    """Reads one checkpoint by the path of its JSON file.

    Returns:
        Its step and state.

    Raises:
        ValueError: if it is no checkpoint, or damaged.
    """
    try:
        record = json.loads(path.read_bytes())
        own = record.pop("sha256")
        if own != _own_hash(record):
            raise ValueError("its hash does not fit its content")
        content = path.with_suffix(".safetensors").read_bytes()
        if sha256(content) != record["tensors_sha256"]:
            raise ValueError(f"the hash of {path.with_suffix('.safetensors').name} does not fit its content")
        return int(record["step"]), _restore(record["state"], safetensors.torch.load(content))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint ({error})") from None


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    parts = []
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        parts.append(f"{name} {t.dtype} {list(t.shape)}\n".encode() + t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256(b"".join(parts))


def _own_hash(record: dict[str, Any]) -> str:
    return sha256(json.dumps(record, sort_keys=True).encode())


def _describe(value: Any, tensors: dict[str, Tensor], key: str) -> Any:
    """The value with tensors moved out under their path, as JSON can hold it."""
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
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: _restore(v, tensors) for k, v in content}
    parts = [_restore(v, tensors) for v in content]
    return tuple(parts) if kind == "tuple" else parts
