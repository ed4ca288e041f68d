"""Actions in copies of this process, which has torch: milliseconds where a new interpreter imports it for seconds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 60.0
"""of a core that is shared with no other process"""
UNENDED = 124
"""exit code of an action that did not end in time"""


@dataclass(frozen=True)
class Ended:
    """How an action ended."""

    code: int
    """exit code; negative: the signal that ended it; 124: it did not end in time"""
    out: str
    err: str


def execute(action: Callable[[], object], place: Path, meanwhile: Callable[[int], None] = lambda copy: None) -> Ended:
    """Executes an action in a copy of this process; if it does not end in time, it is killed with what it has started.

    Args:
        action: its result or the code with which it exits is the exit code.
        place: working directory.
        meanwhile: called with the copy's process id while it works, some fifty times a second.

    Returns:
        How it ended.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        if not (copy := os.fork()):
            _act(action, place, (out.fileno(), err.fileno()))
        code = _wait(copy, meanwhile)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(code, *texts)


def _act(action: Callable[[], object], place: Path, outputs: tuple[int, int]) -> None:
    """Executes the action in the copy, and ends the copy."""
    code = 1
    try:
        os.setsid()
        os.chdir(place)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, file in enumerate(outputs, 1):
            os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        code = int(action() or 0)  # type: ignore[call-overload]
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(copy: int, meanwhile: Callable[[int], None]) -> int:
    """Waits for the end of a copy, or kills it; returns its exit code."""
    code, end = UNENDED, time.monotonic() + SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    while time.monotonic() < end:
        ended, status = os.waitpid(copy, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        meanwhile(copy)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(copy, signal.SIGKILL)  # workers and the prepared process with it
    if code == UNENDED:
        os.waitpid(copy, 0)
    return code
