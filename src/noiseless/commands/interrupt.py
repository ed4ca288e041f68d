"""Ctrl-C and SIGTERM: asked once, a run stops after its step; asked twice, the program ends at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = b"\nstopping after this step; once more to stop at once, without its checkpoint\n"


@contextmanager
def noted() -> Iterator[list[int]]:
    """Notes the first signal that asks to stop; from then on one raises `KeyboardInterrupt`.

    Yields:
        The numbers of the signals that have come.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.default_int_handler)
        os.write(2, STOPPING)  # not through the console, which the signal may have found in the middle of a line

    with handled(note, signal.SIGINT, signal.SIGTERM):
        yield received


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
