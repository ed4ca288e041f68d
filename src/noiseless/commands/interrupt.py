"""Ctrl-C, SIGTERM and SIGUSR1: asked once, a run stops at its next block; asked twice, the program ends at once.

Before there are blocks, while data are downloaded or packed, it ends at once where it is asked once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from noiseless.exits import first_worker

STOPPING = b"\nstopping at the next block; once more to stop at once, without what is not yet written\n"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def noted() -> Iterator[list[int]]:
    """Notes the first signal that asks to stop; from then on one raises `KeyboardInterrupt`.

    Yields:
        The numbers of the signals that have come.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        if "RANK" not in os.environ:  # torchrun hands on to its workers what the terminal has sent them already
            for each in SIGNALS:
                signal.signal(each, signal.default_int_handler)
        if first_worker():
            os.write(2, STOPPING)  # not through the console, which the signal may have found in the middle of a line

    with handled(note, *SIGNALS):
        yield received


@contextmanager
def at_once() -> Iterator[None]:
    """Within it a signal raises `KeyboardInterrupt`: no block is under way that could be waited for.

    The workers of a job, who wait for each other, keep their handlers.

    Yields:
        Nothing.
    """
    with handled(signal.default_int_handler, *(SIGNALS if "RANK" not in os.environ else ())):
        yield


@contextmanager
def handled(handler: Callable[[int, Any], Any], *numbers: signal.Signals) -> Iterator[None]:
    """Handles signals in its own way for a while.

    Args:
        handler: as `signal.signal` takes it.
        numbers: of the signals.

    Yields:
        Nothing.
    """
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
