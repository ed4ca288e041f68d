"""No part of a run is a device or pipe, and no link in it leads out of its directory."""

from __future__ import annotations

import stat
from pathlib import Path

from noiseless.plain import real

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
FOLDERS = ("checkpoints", "within", "analysis", "snapshots", "tensorboard", "wandb")
"""of a run's directory"""
UNNEEDED = ("snapshots", "tensorboard", "wandb")
"""folders whose files are not needed to read a run, so that a wrong one is no reason to refuse it"""


def refuse_outside(run: Path) -> None:
    """Raises if a part of a run is a device, pipe or socket, or a link that leads out of the run's directory.

    The program writes into the directories of runs, so such a link in somebody else's run would choose what is read or
    overwritten. The directory itself may be a link.

    Args:
        run: the directory.

    Raises:
        ValueError: naming the part.
    """
    root = real(run)
    for name in (*FILES, *FOLDERS):
        _refuse_part(run / name, root)
    for name in FOLDERS:
        if name not in UNNEEDED and (run / name).is_dir():
            for part in (run / name).iterdir():
                _refuse_part(part, root)


def _refuse_part(part: Path, root: Path) -> None:
    if part.is_symlink() and not (target := real(part)).is_relative_to(root):
        raise ValueError(
            f"{part} is a link that leads out of the run, to {target}: put what it stands for in its place, or remove"
            " it"
        )
    try:
        mode = part.stat().st_mode
    except OSError:
        return  # whoever opens it says why it cannot be read
    for has_kind, kind in SPECIAL:
        if has_kind(mode):
            raise ValueError(f"{part} is {kind}, not a file: put the file that it stands for in its place")
