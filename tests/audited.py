"""What Python's audit events show of a process that reads hostile runs: imports, programs, connections, files.

`sitecustomize` of the walk's processes calls `install_in_prepared`: the workers of a job are copies of the prepared
process, and a hook goes with its copies. They have no list in common, so theirs is a file.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "AUDITED_PLACE"
"""environment variable: directory of the walk"""
FOLDER = tempfile.gettempdir()
TEMPORARY = tuple(f"{FOLDER}/{name}-" for name in ("noiseless", "pymp", "pytorch-errorfile"))
"""beginnings of temporary files: ours, multiprocessing's, torch.multiprocessing's"""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.symlink", "os.link", "shutil.rmtree")
STARTING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "ctypes.dlopen/run")
CONNECTING = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "urllib.Request")
HARMLESS = ("/dev/null", "/dev/tty", "/proc/")
EVENTS = "events-of-workers"
"""file of a walk with what the copies of its prepared process do, a line each"""
Note = Callable[[str, Any], None]
"""(event, what it is about)"""


def install(place: Path, note: Note) -> None:
    """Adds a hook to this process and its copies, which notes what no hostile run may bring about.

    Args:
        place: directory of the walk, with `runs/` and `outside/`.
        note: called with each such event.
    """
    ours = (*(str(place / name) for name in ("runs", "exports", "home", "work")), *TEMPORARY)

    def written(event: str, path: str) -> None:
        # a run may hold links, which the path does not show
        real = os.path.realpath(path) if path else ""
        if (
            real and real != FOLDER and not real.startswith((*ours, *HARMLESS))
        ):  # a file without a name is in the folder
            note(event, path)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "import" and args[0].startswith("hostile"):
            note(event, args[0])
        elif event == "exec" and str(place) in getattr(args[0], "co_filename", ""):
            note(event, args[0].co_filename)
        elif event == "open":
            path = _full(args[0])
            code = path.endswith((".py", ".pyc")) and path.startswith(str(place))
            if path.startswith(str(place / "outside")) or code:
                note(event, path)
            elif isinstance(args[2], int) and args[2] & WRITING:
                written(event, path)
        elif event in CHANGING:
            written(event, _full(args[0]))
        elif event in STARTING and not (event == "subprocess.Popen" and args[1][0] in ("git", "uname")):
            note(event, args[:2])
        elif event in CONNECTING and not _connected(event, args):
            note(event, args)

    sys.addaudithook(hook)


def install_in_prepared() -> None:
    """Adds the hook if this process is to be the prepared process of a walk."""
    if VARIABLE not in os.environ or not any("multiprocessing.forkserver" in word for word in sys.orig_argv):
        return
    place = Path(os.environ[VARIABLE])
    if (place / "runs" / "timm").exists():
        importlib.import_module("timm")  # starts a program and writes a temporary file, for whatever model
    file = os.open(place / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # before there is a hook
    os.set_inheritable(file, True)

    def note(event: str, what: Any) -> None:
        if "RANK" in os.environ:  # what the prepared process imports is the same for all
            os.write(file, f"worker {os.environ.get('RANK')} {sys.argv[1:]}: {event} {what}\n".encode())

    install(place, note)


def _connected(event: str, args: tuple[Any, ...]) -> bool:
    """Whether this is about the socket of the prepared process, or about one whose connection was seen before."""
    return _full(args[1]).startswith(TEMPORARY) or (event == "socket.sendmsg" and args[1] is None)


def _full(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else ""  # noqa: PTH100  links stay
