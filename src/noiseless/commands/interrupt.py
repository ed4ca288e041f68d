"""Handles Ctrl-C (SIGINT), SIGTERM and SIGUSR1.

After the first signal a run stops at its next block; after a second one the program ends immediately. While data are
downloaded or packed there are no blocks yet, and the first signal ends the program immediately.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from noiseless.exits import first_worker, in_job
from noiseless.system import STOPS

STOPPING = b"\nstopping at the next block; repeat to stop immediately, which loses what is not yet written\n"


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Records the first signal to stop; a second one raises `KeyboardInterrupt`.

    Yields:
        The numbers of the signals received so far.
    """
    received: list[int] = []

    def record(number: int, frame: object) -> None:
        received.append(number)
        if not in_job():  # torchrun sends its workers each signal again that the terminal has sent them
            for stop_signal in STOPS:
                signal.signal(stop_signal, signal.default_int_handler)
        if first_worker():
            os.write(2, STOPPING)  # not by the console, which may be in the middle of a line

    with signal_handler(record, *STOPS):
        yield received


@contextmanager
def interruptible() -> Iterator[None]:
    """A context in which a signal raises `KeyboardInterrupt`, for work that has no blocks.

    The workers of a job keep their handlers, because they wait for each other.

    Yields:
        Nothing.
    """
    with signal_handler(signal.default_int_handler, *(() if in_job() else STOPS)):
        yield


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
