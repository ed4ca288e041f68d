"""Where two runs part: the first row of their records, and the first tensor of their checkpoints, that differ.

Torch is not needed: tensors are compared by their bytes, so that runs are equal only if they are equal to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiseless.files import heads, record
from noiseless.files.directory import RunDirectory
from noiseless.files.heads import DAMAGED
from noiseless.plain import read_file

TIMES = ("seconds", "asked_seconds")
"""columns of the record that differ between equal runs"""
NUMBERS: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
}  # fmt: skip
"""dtype in a safetensors file -> numpy's, for those that numpy has"""


@dataclass(frozen=True)
class RowDifference:
    """The first row in which two records differ."""

    step: int
    columns: dict[str, tuple[Any, Any]]
    """column -> (value of the first run, value of the second)"""


@dataclass(frozen=True)
class RecordDifference:
    """How far two records are equal."""

    common: int
    """number of steps that both have"""
    first: RowDifference | None
    """None: all common rows are equal"""


@dataclass(frozen=True)
class TensorDifference:
    """The first parameter or buffer in which two states differ."""

    step: int
    """steps done"""
    name: str
    problem: str
    """what differs: shape, dtype, or by how much the values do"""
    others: int
    """number of further tensors that differ at this step"""


@dataclass(frozen=True)
class StateDifference:
    """How far the checkpoints of two runs are equal."""

    steps: tuple[int, ...]
    """steps of the states that were compared, in ascending order; the last one is where they part, if they do"""
    first: TensorDifference | None
    """None: all are equal"""


def compare_records(first: RunDirectory, second: RunDirectory) -> RecordDifference:
    """Compares the records of two runs row by row, in the columns that both have, without times."""
    rows = [{row["step"]: row for row in record.read(run.metrics).rows} for run in (first, second)]
    common = sorted(rows[0].keys() & rows[1].keys())
    for step in common:
        a, b = (of_run[step] for of_run in rows)
        names = [name for name in a if name in b and name not in TIMES]
        columns = {name: (a[name], b[name]) for name in names if not _equal(a[name], b[name])}
        if columns:
            return RecordDifference(len(common), RowDifference(step, columns))
    return RecordDifference(len(common), None)


def compare_states(first: RunDirectory, second: RunDirectory, step: int | None = None) -> StateDifference:
    """Compares parameters and buffers of two runs at the steps of which both have a checkpoint.

    Args:
        first: a run.
        second: another one.
        step: the only step to compare; None: all, and the final parameters.

    Returns:
        The first difference.

    Raises:
        ValueError: if one of them lacks the step, or a checkpoint is damaged.
    """
    steps = [heads.steps(run.checkpoints) for run in (first, second)]
    if step is not None:
        for run, of_run in zip((first, second), steps, strict=True):
            if step not in of_run:
                raise ValueError(f"{run.path} has no checkpoint of step {step}: it has {', '.join(map(str, of_run))}")
    compared: list[int] = []
    for common in sorted(set(steps[0]) & set(steps[1])) if step is None else [step]:
        compared.append(common)
        states = [_checkpoint(run.checkpoints / f"step-{common:08d}.json") for run in (first, second)]
        if difference := _difference(common, *states):
            return StateDifference(tuple(compared), difference)
    ends = [None if end is None else end.step for end in (first.end(), second.end())]
    if step is None and ends[0] is not None and ends[0] == ends[1] and ends[0] not in compared:
        compared.append(ends[0])
        difference = _difference(ends[0], *(_final(run.model) for run in (first, second)))
        return StateDifference(tuple(compared), difference)
    return StateDifference(tuple(compared), None)


def _checkpoint(path: Path) -> dict[str, Any]:
    """The parameters and buffers in a checkpoint, in the model's order."""
    head = heads.head(path)
    try:
        tensors = heads.raw_tensors(heads.tensors_of(path, head))
        state = dict(head.state["dict"])["model"]["dict"]
        return {str(name): tensors[described["tensor"]] for name, described in state}
    except DAMAGED as error:
        raise ValueError(heads.damage(path, error)) from None


def _final(path: Path) -> dict[str, Any]:
    """The tensors in the file of the final parameters."""
    try:
        return heads.raw_tensors(read_file(path))
    except DAMAGED as error:
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}") from None


def _difference(step: int, first: dict[str, Any], second: dict[str, Any]) -> TensorDifference | None:
    """The first tensor in which two states differ."""
    names = dict.fromkeys([*first, *second])
    differing = [name for name in names if not _equal_tensors(first.get(name), second.get(name))]
    if not differing:
        return None
    name = differing[0]
    return TensorDifference(step, name, _problem(first.get(name), second.get(name)), len(differing) - 1)


def _equal_tensors(a: dict[str, Any] | None, b: dict[str, Any] | None) -> bool:
    """Whether both states have a tensor with the same bits."""
    return a is not None and b is not None and all(a[what] == b[what] for what in ("shape", "dtype", "data"))


def _problem(a: dict[str, Any] | None, b: dict[str, Any] | None) -> str:
    """What differs between two tensors."""
    if a is None or b is None:
        return "only one of them has it"
    for what in ("shape", "dtype"):
        if a[what] != b[what]:
            return f"{what} {a[what]} and {b[what]}"
    if a["dtype"] not in NUMBERS:
        return "its bytes differ"
    import numpy as np  # not above: it takes a fifth of the time of the command, and equal runs do not need it

    x, y = (np.frombuffer(bytes(t["data"]), NUMBERS[a["dtype"]]).astype(np.float64) for t in (a, b))
    with np.errstate(invalid="ignore"):
        largest = float(np.max(np.abs(x - y)))
    count = int(np.count_nonzero(x != y))
    return f"{count:,} of {len(x):,} values differ, by {largest:.3g} at most"


def _equal(a: Any, b: Any) -> bool:
    """Whether two values of a record are equal; NaN equals NaN."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(*pair) for pair in zip(a, b, strict=True))
    return bool(a == b)
