"""What operating systems differ in. Only this file names what Linux has and Windows lacks; a test reads the others."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STOPS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1
"""signals that stop a command at the next block"""
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""signal that ends a process at once"""
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])[ ]*(\..*)?", re.IGNORECASE)
"""names that are devices on Windows, with any ending"""


def cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def blocked(signals: tuple[signal.Signals, ...] = STOPS) -> Iterator[None]:
    """A context in which this thread, and processes that it starts, are not sent signals, where threads can block them.

    Args:
        signals: which.

    Yields:
        Nothing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def signal_handler(handler: Callable[[int, Any], Any], *numbers: signal.Signals) -> Iterator[None]:
    """A context in which signals have another handler. Outside the main thread nothing changes: Python forbids it.

    Args:
        handler: argument of `signal.signal`.
        numbers: the signals.

    Yields:
        Nothing.
    """
    if threading.current_thread() is not threading.main_thread():  # of Ray Train, which trains in a thread of its own
        numbers = ()
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


def unblock(signals: tuple[signal.Signals, ...] = STOPS) -> None:
    """Lets this thread get signals again that the process which started it had blocked."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def alive(process: int) -> bool:
    """Whether a process of that number exists on this machine; True where that cannot be told without ending it."""
    if sys.platform == "win32":  # there, os.kill ends the process, whatever the signal
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # the process of another user
        return True
    return True


def end(process: int, at_once: bool = False) -> None:
    """Asks a process to stop, or ends it; nothing happens if it does not exist."""
    with suppress(OSError):
        os.kill(process, KILL if at_once else signal.SIGTERM)


def peak_memory() -> float | None:
    """The peak resident memory of this process so far, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def free_memory() -> int | None:
    """Bytes that a process can get without swapping, or all of the machine's memory; None where neither is known."""
    file = Path("/proc/meminfo")
    available = re.search(r"MemAvailable: *(\d+) kB", file.read_text()) if file.exists() else None
    if available:
        return int(available[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


def others_can_write(status: os.stat_result) -> bool:
    """Whether a file belongs to another user than this one and root, or anybody can write it; False on Windows."""
    if not hasattr(os, "geteuid"):
        return False
    return status.st_uid not in (os.geteuid(), 0) or bool(status.st_mode & 0o002)


def is_device_name(name: str) -> bool:
    """Whether a file of that name would be a device on Windows, such as `CON` or `nul.txt`."""
    return RESERVED.fullmatch(name) is not None
