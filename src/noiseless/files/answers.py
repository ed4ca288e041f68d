"""Results of analyses of a run, in its directory as `analysis/KIND-NAME.json`, for reports and for reading."""

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
    """The result of one analysis of a run."""

    kind: str
    """sharpness, noise, landscape, flatness, layers"""
    name: str
    """name among the answers of its kind: the step, and the options in which the answers differ"""
    values: dict[str, Any]
    """plain values by name, None for a number that is not finite; always with `step`, the number of steps done"""


def folder(directory: RunDirectory) -> Path:
    """The folder of a run's answers, which is made if it does not exist.

    Returns:
        The path.

    Raises:
        ValueError: if the folder cannot be made.
    """
    path = directory.path / FOLDER
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make {path}: {error.strerror}; analyse a copy of the run") from None
    return path


def write(directory: RunDirectory, answer: Answer) -> Path:
    """Writes an answer, over an older one of the same kind and name; returns the path of the file."""
    path = folder(directory) / f"{answer.kind}-{answer.name}.json"
    write_json(path, {"kind": answer.kind, "name": answer.name, "found": finite(answer.values)})
    return path


def read(directory: RunDirectory, kind: str | None = None) -> list[Answer]:
    """Reads the answers of a run.

    Args:
        directory: of the run.
        kind: of the answers; None: all kinds.

    Returns:
        The answers, in the order of kind, step and name.

    Raises:
        ValueError: naming a file that cannot be read as an answer.
    """
    answers = []
    for path in sorted((directory.path / FOLDER).glob(f"{kind or '*'}-*.json")):
        try:
            content = json.loads(path.read_bytes())
            answer = Answer(content["kind"], content["name"], content["found"])
            int(answer.values["step"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is not the result of an analysis ({error!r}): remove it, and run the analysis again"
            ) from None
        answers.append(answer)
    return sorted(answers, key=lambda a: (a.kind, a.values["step"], a.name))


def finite(value: Any) -> Any:
    """A copy with None in place of numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value
