"""Results of analyses of a run, in its directory as `analysis/KIND-NAME.json`, for reports and for reading."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiseless.files import atomic
from noiseless.files.atomic import write_json
from noiseless.files.directory import RunDirectory
from noiseless.plain import parse, read_file, sealed, typed, unsealed
from noiseless.screen import print_note

FOLDER = "analysis"


@dataclass(frozen=True)
class Answer:
    """The result of one analysis of a run."""

    kind: str
    """sharpness, flow, noise, landscape, flatness, layers"""
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
    write_json(path, sealed({"kind": answer.kind, "name": answer.name, "found": finite(answer.values)}))
    return path


def try_place(directory: RunDirectory) -> None:
    """Writes and removes a file in the folder of a run's answers, so that no answer is computed and then lost.

    Old temporary files of writes that were killed are removed.

    Args:
        directory: of the run.

    Raises:
        ValueError: if no file can be written there.
    """
    existed = (directory.path / FOLDER).is_dir()
    place = folder(directory)
    try:
        atomic.try_place(place)
        atomic.clear(place, own=lambda name: False)
        if not existed:
            place.rmdir()
    except OSError as error:
        raise ValueError(f"cannot write in {place}: {error.strerror}; analyse a copy of the run") from None


def read(directory: RunDirectory, kind: str | None = None) -> list[Answer]:
    """Reads the answers of a run. A file that cannot be read costs that answer: a note names it.

    Args:
        directory: of the run.
        kind: of the answers; None: all kinds.

    Returns:
        The answers, in the order of kind, step and name.
    """
    answers = []
    for path in sorted((directory.path / FOLDER).glob(f"{kind or '*'}-*.json")):
        try:
            answers.append(_parse(read_file(path)))
        except (OSError, ValueError, KeyError) as error:
            lacks = f"it lacks {error}" if isinstance(error, KeyError) else error
            cause = error.strerror if isinstance(error, OSError) else lacks
            print_note(
                f"{path} is left out, as it is not the result of an analysis ({cause}): remove it, and run the analysis"
                " again"
            )
    return sorted(answers, key=lambda a: (a.kind, a.values["step"], a.name))


def _parse(content: bytes) -> Answer:
    """The answer in a file; raises `ValueError` or `KeyError` if it holds something else."""
    values = unsealed(parse(content))
    answer = Answer(
        typed(str, values["kind"], "kind"), typed(str, values["name"], "name"), typed(dict, values["found"], "found")
    )
    typed(int, answer.values["step"], "step")
    return answer


def finite(value: Any) -> Any:
    """A copy with None in place of numbers that are not finite, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, (list, tuple)) else value
