"""What analyses of a run have found, kept in its directory: `analysis/KIND-NAME.json`, for reports and for reading."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiseless.files.atomic import write_json
from noiseless.files.directory import RunDirectory

FOLDER = "analysis"


@dataclass(frozen=True)
class Answer:
    """One analysis of a run."""

    kind: str
    """sharpness, noise, landscape, flatness, layers"""
    name: str
    """which one of its kind: the step, and what else tells it from others"""
    found: dict[str, Any]
    """plain values, None for a number that is not finite; `step`, the steps done, is always there"""


def folder(directory: RunDirectory) -> Path:
    """Where a run's answers are, made when needed.

    Returns:
        The path.

    Raises:
        ValueError: if it cannot be made.
    """
    path = directory.path / FOLDER
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make {path}: {error.strerror}; analyse a copy of the run") from None
    return path


def write(directory: RunDirectory, answer: Answer) -> Path:
    """Keeps an answer, in the place of an older one of its kind and name; gives the file."""
    path = folder(directory) / f"{answer.kind}-{answer.name}.json"
    write_json(path, {"kind": answer.kind, "name": answer.name, "found": finite(answer.found)})
    return path


def read(directory: RunDirectory, kind: str | None = None) -> list[Answer]:
    """The answers of a run, by kind, step and name.

    Args:
        directory: of the run.
        kind: of those that are wanted; None: all.

    Returns:
        The answers.

    Raises:
        ValueError: naming a file that holds none.
    """
    answers = []
    for path in sorted((directory.path / FOLDER).glob(f"{kind or '*'}-*.json")):
        try:
            value = json.loads(path.read_bytes())
            answer = Answer(value["kind"], value["name"], value["found"])
            int(answer.found["step"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no analysis ({error!r}): remove it, and ask again") from None
        answers.append(answer)
    return sorted(answers, key=lambda a: (a.kind, a.found["step"], a.name))


def finite(value: Any) -> Any:
    """The value with None for each number in it that is not finite, as JSON has none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value
