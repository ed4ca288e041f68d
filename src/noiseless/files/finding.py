"""Runs below a directory: those of a race, of `reproduce`, or all of a project. Read without torch or locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from noiseless.files import reading

LEVELS = 4
"""levels of directories below the given one in which runs are searched"""
MOST = 10_000
"""number of directories after which a search is given up: it was not meant to begin at the root of a disk"""


def runs_below(path: Path) -> list[Path]:
    """The run at a path, or the runs below it, in the order of their names.

    Args:
        path: of a run, or of a directory with runs, as `race` and `reproduce` make it.

    Returns:
        The directories of runs; links to directories are not followed. Each one is to be opened by `reading.find`,
        which refuses links that lead out of it.

    Raises:
        ValueError: if there is no run.
    """
    if not (path / reading.CONFIG).is_file() and path.is_dir() and (paths := list(_runs(path, LEVELS, [MOST]))):
        return paths
    return [reading.find(path)]


def has_runs(path: Path) -> bool:
    """Whether there is a run at a path or below it."""
    return (path / reading.CONFIG).is_file() or next(_runs(path, LEVELS, [MOST]), None) is not None


def _runs(directory: Path, levels: int, left: list[int]) -> Iterator[Path]:
    """The runs below a directory; what cannot be read is left out. `left` counts down the directories."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False) or entry.name.startswith("."):
            continue
        left[0] -= 1
        if left[0] < 0:
            return
        path = directory / entry.name
        if (path / reading.CONFIG).is_file():
            yield path
        elif levels > 1:
            yield from _runs(path, levels - 1, left)
