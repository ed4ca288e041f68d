"""Kills at exact places: a process ends by SIGKILL just before its k-th change of a directory.

`install` adds a hook to Python's audit events. Copies of a process have it, too, and all of them count together, so
that a place of the whole job is hit, in whichever process it lies. What is between two places changes no file, except
for the bytes of a file that is being written: a kill may also come after some bytes of the next write (by the largest
size of a file, RLIMIT_FSIZE, which the kernel enforces by a signal).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = "KILLING"
"""environment variable: directory of the plan and of the count"""
REMOVALS = {"os.remove", "os.rmdir"}
CHANGES = {"os.rename", "os.mkdir", "os.truncate", "os.fsync", *REMOVALS}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Plan:
    """What is counted, and where a process is killed."""

    directory: str
    """changes below it are counted"""
    at: int = 0
    """number of the change before which the process that makes it is killed, from 1; 0: none"""
    torn: int = 0
    """it is killed once it has made a file longer than it is now by this number of bytes; 0: at once"""


def plan(chosen: Plan) -> None:
    """Sets the plan of all processes with the hook, and begins to count anew."""
    folder = Path(os.environ[FOLDER])
    (folder / "count").unlink(missing_ok=True)
    (folder / "plan.new").write_text(json.dumps(asdict(chosen)))
    (folder / "plan.new").replace(folder / "plan")


def changes() -> list[str]:
    """The changes counted since the plan was set, a line each: process, event, path."""
    count = Path(os.environ[FOLDER]) / "count"
    return count.read_text().splitlines() if count.exists() else []


def install() -> None:
    """Adds the hook to this process, and to those that begin as its copies."""
    if hasattr(os, "_fsync_without_audit"):
        return
    without = os.fsync

    def fsync(descriptor: Any) -> None:
        sys.audit("os.fsync", descriptor)
        without(descriptor)

    os._fsync_without_audit = without  # type: ignore[attr-defined]
    os.fsync = fsync
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or (event not in CHANGES and event != "open") or FOLDER not in os.environ:
            return
        busy = True
        try:
            _at(event, arguments)
        finally:
            busy = False

    sys.addaudithook(hook)


def _at(event: str, arguments: tuple[Any, ...]) -> None:
    """Counts an event if it is a change of the directory, and kills this process if it is the one of the plan."""
    path = _changed(event, arguments)
    if path is None:
        return
    folder = os.environ[FOLDER]
    try:
        with Path(f"{folder}/plan").open() as file:
            chosen = Plan(**json.load(file))
    except FileNotFoundError:
        return
    if not path.startswith(chosen.directory):
        return
    with Path(f"{folder}/count").open("ab+", buffering=0) as file:
        file.write(f"{os.getpid()} {event} {path}\n".encode())
        end = file.tell()
        file.seek(0)
        number = file.read(end).count(b"\n")
    if number != chosen.at:
        return
    if chosen.torn:
        size = Path(path).stat().st_size if Path(path).is_file() else 0
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + chosen.torn, size + chosen.torn))
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def _changed(event: str, arguments: tuple[Any, ...]) -> str | None:
    """The path that an event changes; None: it changes none, as the removal of a file that does not exist."""
    name, *others = arguments
    if event == "open" and not (others[1] or 0) & WRITES:
        return None
    if isinstance(name, int):
        path = _open_file(name)
        return None if event == "os.fsync" and path.is_dir() else str(path)
    folder = _open_file(others[-1]) if event in REMOVALS and others[-1] >= 0 else Path.cwd()
    path = folder / os.fsdecode(name)
    exists = os.path.lexists(path)
    return None if (event in REMOVALS and not exists) or (event == "os.mkdir" and exists) else str(path)


def _open_file(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


if FOLDER in os.environ:  # in the prepared process
    install()
