"""Handles Ctrl-C (SIGINT), SIGTERM and SIGUSR1.

After the first signal a run stops at its next block; after a second one the program ends immediately. While data are
downloaded or packed there are no blocks yet, and the first signal ends the program immediately.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from noiseless.exits import first_worker, in_job
from noiseless.system import STOPS, signal_handler

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
