"""What checkpoints say of themselves, and their files, read without torch: steps, hashes, and which are whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from noiseless.files.atomic import sha256
from noiseless.plain import parse, read_file, typed, unsealed

NAME = re.compile(r"step-(\d{8,15})\.(json|safetensors)")
"""names of the files of checkpoints"""
DAMAGED = (
    ValueError, KeyError, TypeError, AttributeError, OSError, RuntimeError, RecursionError, MemoryError, OverflowError,
    safetensors.SafetensorError,
)  # fmt: skip
"""what reading a damaged or foreign file can raise"""


@dataclass(frozen=True)
class Head:
    """What a checkpoint says of itself, without its tensors."""

    step: int
    """number of steps done"""
    tensors_sha256: str
    """of the file with the tensors"""
    digests: dict[str, str]
    """of the state, see `checkpoint.digests`"""
    ended: bool
    """whether the run ended with this state"""
    state: Any
    """the state, with names in place of tensors"""


def steps(directory: Path) -> list[int]:
    """The steps of a directory's checkpoints, damaged or not, in ascending order."""
    return [number(path) for path in reversed(newest_first(directory))]


def number(path: Path) -> int:
    """The number of steps done at a checkpoint, from the name of either of its files."""
    return int(path.stem.removeprefix("step-"))


def newest_head(directory: Path) -> Head | None:
    """The head of the newest checkpoint whose JSON is whole; its tensors are not read. None if there is none."""
    for path in newest_first(directory):
        try:
            return head(path)
        except ValueError:
            continue
    return None


def head(path: Path) -> Head:
    """Reads what a checkpoint says of itself.

    Args:
        path: of its JSON file.

    Returns:
        Its head.

    Raises:
        ValueError: if the file is not that of a checkpoint, or is damaged.
    """
    try:
        record = unsealed(parse(read_file(path), finite=False))
        step = typed(int, record["step"], "step")
        if step != number(path):
            raise ValueError(f"it is of step {step}")
        ended = typed(bool, record["ended"], "ended")
        return Head(step, str(record["tensors_sha256"]), dict(record["digests"]), ended, record["state"])
    except DAMAGED as error:
        raise ValueError(damage(path, error)) from None


def whole(path: Path) -> bool:
    """Whether a checkpoint is whole, from the path of its JSON file: the hashes fit."""
    try:
        tensors_of(path, head(path))
    except (ValueError, OSError):
        return False
    return True


def damage(path: Path, error: Exception) -> str:
    """The message about a damaged checkpoint."""
    cause = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)
    return f"{path} is damaged or not a checkpoint ({cause or type(error).__name__})"


def tensors_of(path: Path, described: Head) -> bytes:
    """The content of the file with a checkpoint's tensors; raises if its hash is another one."""
    content = read_file(path.with_suffix(".safetensors"))
    if sha256(content) != described.tensors_sha256:
        raise ValueError(f"the hash of {path.with_suffix('.safetensors').name} does not fit its content")
    return content


def raw_tensors(content: bytes) -> dict[str, dict[str, Any]]:
    """The tensors in a safetensors file: name -> `dtype`, `shape` and `data`, as bytes. Raises one of `DAMAGED`."""
    return dict(safetensors.deserialize(content))  # type: ignore[no-untyped-call]


def newest_first(directory: Path) -> list[Path]:
    """The JSON files of checkpoints, the newest first. One of both files counts: a checkpoint alone is damaged."""
    stems = {path.with_suffix("") for path in _files(directory)}
    return sorted((stem.with_suffix(".json") for stem in stems), key=number, reverse=True)


def _files(directory: Path) -> Iterator[Path]:
    """The files of checkpoints in a directory."""
    return (path for path in directory.glob("step-*") if NAME.fullmatch(path.name))
