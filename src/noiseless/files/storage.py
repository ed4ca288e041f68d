"""What a run needs of the storage under its directory: locks, flushing, appending, renaming over an existing file.

Mounts of object stores lack some of it. That is tried before training, in a folder that is removed afterwards.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from noiseless.files.reading import CONFIG
from noiseless.lock import HeldError, locked

OTHER_CAUSES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOENT}
)
"""errors that are not about what the storage can do; the run itself reports them where they meet it"""


@dataclass(frozen=True)
class Names:
    """How a user gives the directory of a run and that of its copy."""

    run_dir: str
    copy_to: str | None
    """with what stands before the value; None: there are no copies"""


FLAGS = Names("--run-dir", "--copy-to ")
WITHOUT_COPY = Names("--run-dir", None)
IN_PYTHON = Names("run_dir", "copy_to=")


def refuse_unfit(path: Path, names: Names = FLAGS) -> None:
    """Raises if a run cannot be kept in a directory, because its storage lacks locks, flushing, appending or renaming.

    What several machines do at the same time is not tried: a lock may hold on one machine alone.

    Args:
        path: of the run; need not exist. Then its nearest parent that exists is tried.
        names: of the arguments that the message names.

    Raises:
        ValueError: naming what the storage lacks, with the remedy.
    """
    if path.is_dir() and any(path.iterdir()) and not (path / CONFIG).exists():
        return  # a directory of something else, which is refused as it is
    place = next(parent for parent in (path, *path.parents) if parent.exists())
    folder = place / f".probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
    except OSError:
        return  # a place that cannot be written has a message of its own
    try:
        lacking = [fault for name, attempt in ATTEMPTS.items() if (fault := _fault(name, attempt, folder))]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if lacking:
        given = shlex.quote(str(path)) if names is FLAGS else repr(str(path))
        copy = f", and add {names.copy_to}{given} to have finished checkpoints copied there" if names.copy_to else ""
        raise ValueError(
            f"the storage of {path} cannot {' and '.join(lacking)}, as mounts of object stores cannot, so a run there"
            f" could be damaged: choose a {names.run_dir} on a local disk or a shared file system{copy}"
        )


def _fault(name: str, attempt: Callable[[Path], str | None], folder: Path) -> str | None:
    """What is wrong with an operation, as the end of a sentence; None if it works."""
    try:
        cause = attempt(folder)
    except NotImplementedError as error:
        cause = str(error)
    except OSError as error:
        if error.errno in OTHER_CAUSES:
            return None
        cause = error.strerror or type(error).__name__
    return f"{name} ({cause})" if cause else None


def _lock(folder: Path) -> str | None:
    with locked(folder / "lock"), suppress(HeldError), locked(folder / "lock"):
        return "two holders at the same time"
    return None


def _append(folder: Path) -> str | None:
    file = folder / "appended"
    file.write_bytes(b"1")
    with file.open("ab") as end:
        end.write(b"2")
    return None if file.read_bytes() == b"12" else "the file has other content afterwards"


def _flush(folder: Path) -> str | None:
    with (folder / "flushed").open("wb") as file:
        file.write(b"1")
        file.flush()
        os.fsync(file.fileno())
    return None


def _rename(folder: Path) -> str | None:
    old, new = folder / "old", folder / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    new.replace(old)
    return None if old.read_bytes() == b"new" and not new.exists() else "the old file is still there"


ATTEMPTS: dict[str, Callable[[Path], str | None]] = {
    "lock files": _lock,
    "append to a file": _append,
    "flush a file": _flush,
    "rename over an existing file": _rename,
}
"""what a run does with files, as the end of a sentence -> tries it in a folder; returns what is wrong, or raises"""
