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


def execute(
    action: Callable[[], object],
    place: Path,
    kill_after: float | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    seconds: float = SECONDS,
) -> Ended:
    """Executes an action in a copy of this process, with its output in files.

    Args:
        action: its result or the code with which it exits is the exit code.
        place: working directory.
        kill_after: seconds after which the copy is killed; None: it is not.
        meanwhile: called while it works, some fifty times a second.
        seconds: after which the copy, if it has not ended, is killed with all that it has started.

    Returns:
        How it ended.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        if not (copy := os.fork()):
            _act(action, place, (out.fileno(), err.fileno()))
        code = _wait(copy, kill_after, meanwhile, seconds)
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


def _wait(copy: int, kill_after: float | None, meanwhile: Callable[[], None], seconds: float) -> int:
    """Waits for the end of a copy, or kills it; returns its exit code."""
    start, code = time.monotonic(), UNENDED
    seconds *= max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    while (lasted := time.monotonic() - start) < seconds:
        ended, status = os.waitpid(copy, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            break
        meanwhile()
        if kill_after is not None and lasted >= kill_after:
            os.kill(copy, signal.SIGKILL)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(copy, signal.SIGKILL)  # workers and the prepared process with it
    if code == UNENDED:
        os.waitpid(copy, 0)
    return code
