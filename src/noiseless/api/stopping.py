"""Ctrl-C and SIGTERM during `fit` with a directory: the run stops at its next block, and leaves a checkpoint."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from noiseless.exits import first_worker
from noiseless.objective.workers import Workers
from noiseless.run.train import Interrupted
from noiseless.screen import print_note
from noiseless.system import signal_handler

STOPPING = b"\nstopping at the next block, with a checkpoint; repeat to stop immediately\n"
DEFAULTS: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""signals that stop a run, with Python's own handlers; a handler of the user's program is left as it is"""


class Stop:
    """Whether a run is to stop, because a signal has come while it was listening.

    Args:
        workers: of the run; for a time they ask this object, too.
    """

    def __init__(self, workers: Workers):
        self._before = workers.stop
        self.received: list[int] = []
        """the signals that have come"""

    def __call__(self) -> bool:
        """Whether to stop."""
        return bool(self.received) or self._before()

    def listening(self) -> AbstractContextManager[None]:
        """A context in which a first signal is recorded. A second one has the effect that it has without this."""
        signals = [number for number, handler in DEFAULTS.items() if signal.getsignal(number) is handler]

        def record(number: int, frame: object) -> None:
            self.received.append(number)
            for each in signals:
                signal.signal(each, DEFAULTS[each])
            if first_worker():
                os.write(2, STOPPING)  # not by print, which may be in the middle of a line

        return signal_handler(record, *signals) if signals else nullcontext()


@contextmanager
def stoppable(workers: Workers) -> Iterator[Stop]:
    """A context for training, after which a signal that has stopped it has its effect.

    Args:
        workers: of the run.

    Yields:
        What tells the workers to stop.

    Raises:
        KeyboardInterrupt: if the run was stopped, by Ctrl-C or by another worker.
    """
    before, workers.stop = workers.stop, (stop := Stop(workers))
    try:
        yield stop
    except Interrupted as interrupted:
        text = str(interrupted)
    else:
        return
    finally:
        workers.stop = before
    if workers.rank == 0:
        print_note(text)
    for number in stop.received:
        signal.raise_signal(number)
    raise KeyboardInterrupt(text)
