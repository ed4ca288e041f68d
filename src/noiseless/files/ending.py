"""The end of a run, which its last checkpoint and its record both have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiseless.files import heads, record


@dataclass(frozen=True)
class End:
    """The end of a run, as its last checkpoint and its record have it."""

    step: int
    """number of steps done"""
    digests: dict[str, Any]
    """digest of the final parameters and buffers, `model`, and of their `average` if there is one"""


def read(checkpoints: Path, metrics: Path) -> End:
    """The end of a run that has ended.

    Args:
        checkpoints: directory of its checkpoints.
        metrics: its record.

    Returns:
        The end.

    Raises:
        ValueError: if last checkpoint and record disagree, or both are gone.
    """
    head, rows = heads.newest_head(checkpoints), record.read(metrics).rows
    ends = [End(head.step, head.digests)] if head and head.ended else []
    if rows and isinstance(final := rows[-1].get("final"), dict):
        ends.append(End(rows[-1]["step"] + 1, final))
    if not ends:
        raise ValueError(
            f"the final parameters cannot be checked: {metrics} has lost its last row, and {checkpoints} the last"
            " checkpoint; restore one of them from a copy"
        )
    if ends[0] != ends[-1]:
        raise ValueError(
            f"{metrics} ends with other parameters than the last checkpoint in {checkpoints}: restore the run from a"
            " copy"
        )
    return ends[0]
