"""The record of a run on disk: one line of JSON for each step in `metrics.jsonl`.

Lines that a crash or a bad disk has damaged are left out and, by `cut`, set aside in `metrics.damaged`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiseless.files.atomic import write_bytes
from noiseless.files.reading import parsed_row
from noiseless.plain import read_file

Row = dict[str, Any]


@dataclass(frozen=True)
class Lines:
    """The lines of a record."""

    rows: list[Row]
    """the rows, in the order of their steps"""
    damaged: list[bytes]
    """lines that are no rows, or whose step does not fit between those of the lines around it"""


def read(path: Path) -> Lines:
    """Reads a record. An incomplete last line is neither a row nor damaged: the step was not recorded.

    Args:
        path: of `metrics.jsonl`; a missing file has no lines.

    Returns:
        The lines.
    """
    try:
        lines = read_file(path).split(b"\n")
    except FileNotFoundError:
        return Lines([], [])
    last = parsed_row(lines[-1])
    parsed = [(line, parsed_row(line)) for line in lines[:-1] if line.strip()] + ([(lines[-1], last)] if last else [])
    whole, damaged = [(line, row) for line, row in parsed if row], [line for line, row in parsed if not row]
    rows: list[Row] = []
    for position, (line, row) in enumerate(whole):
        before = rows[-1]["step"] if rows else -1
        after = whole[position + 1][1]["step"] if position + 1 < len(whole) else row["step"] + 1
        # a step that runs ahead of the next line's is damaged, unless that line has fallen behind
        if before < row["step"] and (row["step"] <= after or after <= before):
            rows.append(row)
        else:
            damaged.append(line)
    return Lines(rows, damaged)


def cut(path: Path, step: int) -> str | None:
    """Removes the rows of a step and later ones, which the run computes again, and sets damaged lines aside.

    Args:
        path: of `metrics.jsonl`.
        step: first step that is removed.

    Returns:
        Message about damaged lines; None if there are none.
    """
    lines = read(path)
    message = None
    if lines.damaged:
        aside = path.with_suffix(".damaged")
        with aside.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lines.damaged))
            file.flush()
            os.fsync(file.fileno())
        message = f"{path} has {len(lines.damaged)} damaged lines, which are set aside in {aside}"
    rows = [row for row in lines.rows if row["step"] < step]
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return message
