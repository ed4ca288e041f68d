"""Files that others have made are read as files: no device or pipe is opened, and no link leads out of a run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
FILES = (
    "config.json", "environment.json", "metrics.jsonl", "lock", "model.safetensors", "average.safetensors",
    "predictions.npz", "report.html", "wandb.json",
)  # fmt: skip
"""of a run's directory"""
FOLDERS = ("checkpoints", "analysis", "snapshots", "tensorboard", "wandb")
"""of a run's directory"""
UNNEEDED = ("snapshots", "tensorboard", "wandb")
"""folders whose files are not needed to read a run, so that a wrong one is no reason to refuse it"""


def refuse_special(path: Path | str) -> None:
    """Raises if a path is a device, pipe or socket: reading it would have an effect, or no end.

    Raises:
        ValueError: naming the path.
    """
    try:
        _refuse_mode(path, os.stat(path).st_mode)  # noqa: PTH116  # called for each of a million images
    except OSError:
        return  # whoever opens it says why it cannot be read


def read_bytes(path: Path | str) -> bytes:
    """The content of a file.

    Args:
        path: of the file.

    Returns:
        Its bytes.

    Raises:
        ValueError: if it is a device, pipe or socket.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123  a pipe would wait
        _refuse_mode(path, os.fstat(file.fileno()).st_mode)
        return file.read()


def _refuse_mode(path: Path | str, mode: int) -> None:
    for has_kind, kind in SPECIAL:
        if has_kind(mode):
            raise ValueError(f"{path} is {kind}, not a file: put the file that it stands for in its place")


def refuse_outside(run: Path) -> None:
    """Raises if a part of a run is a device, pipe or socket, or a link that leads out of the run's directory.

    The program writes into the directories of runs, so such a link in somebody else's run would choose what is read or
    overwritten. The directory itself may be a link.

    Args:
        run: the directory.

    Raises:
        ValueError: naming the part.
    """
    root = run.resolve()
    for name in (*FILES, *FOLDERS):
        _refuse_part(run / name, root)
    for name in FOLDERS:
        if name not in UNNEEDED and (run / name).is_dir():
            for part in (run / name).iterdir():
                _refuse_part(part, root)


def _refuse_part(part: Path, root: Path) -> None:
    if part.is_symlink() and not part.resolve().is_relative_to(root):
        raise ValueError(
            f"{part} is a link that leads out of the run, to {part.resolve()}: put what it stands for in its place, or"
            " remove it"
        )
    refuse_special(part)
