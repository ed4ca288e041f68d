"""Workers: which process computes which chunk of a sweep, and how their sums are added. Steps 2 and 5 of a step.

Chunks are handed out one at a time, so a slow worker delays only its own chunk. The sum does not depend on which worker
computed what. One process works `Alone`; the processes of a torchrun job are a `Team` (team.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch

from noiseless.objective.partial import Partial


class WorkerLostError(RuntimeError):
    """A worker has vanished: the others cannot finish the sweep.

    Attributes:
        intact: whether this worker's partial sum still holds its terms alone; False once the adding up has begun.
    """

    intact = True


class JobFailedError(Exception):
    """Another worker has failed in a way that a restart cannot mend, and has printed its message.

    Attributes:
        code: exit code of that worker, with which all end.
    """

    def __init__(self, code: int):
        super().__init__(f"another worker of this job has ended with exit code {code}")
        self.code = code


class SweepStoppedError(Exception):
    """The sweep was stopped before its end.

    Attributes:
        moved: whether an optimizer has changed the parameters, or its state, since its step began.
    """

    def __init__(self, partial: Partial):
        super().__init__(f"{int(partial.done.sum())} of {len(partial.done)} chunks are done")
        self.moved = False


class Workers(ABC):
    """The processes that share the sweeps.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        stop: called before each chunk; returns whether this process has been told to stop.
    """

    rank: int
    count: int
    stop: Callable[[], bool]

    @abstractmethod
    def begin(self, step: int, update: int = 0) -> None:
        """Called with the numbers of a step and of its update before the update's sweeps."""

    @abstractmethod
    def close(self) -> None:
        """Leaves the job."""

    @abstractmethod
    def share(self, partial: Partial) -> Iterator[int]:
        """The numbers of the chunks that this process is to compute, one at a time.

        Args:
            partial: this process's sums so far; a chunk that is done in any worker's is not handed out.
        """

    @abstractmethod
    def combine(self, partial: Partial) -> None:
        """Makes each worker's partial sum the sum over all workers, with the same bits at each.

        Raises:
            SweepStoppedError: if a worker was told to stop and chunks are missing; all workers raise it.
        """

    @abstractmethod
    def any(self, flag: bool) -> bool:
        """Whether the flag is set at any worker: the same answer at each."""

    @abstractmethod
    def exchange(self, text: str) -> list[str]:
        """Each worker's text, by rank; waits for all workers."""

    @abstractmethod
    def fail(self, code: int) -> bool:
        """Ends the other workers, because this one has failed in a way that a restart cannot mend.

        Args:
            code: exit code of all workers.

        Returns:
            Whether this worker is the first that has failed, so that its message is to be printed.
        """


class Alone(Workers):
    """One process, which computes the chunks in their order."""

    rank, count = 0, 1

    def __init__(self, stop: Callable[[], bool] = lambda: False):
        self.stop = stop

    def begin(self, step: int, update: int = 0) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

    def share(self, partial: Partial) -> Iterator[int]:
        """The numbers of the chunks that are not done, in their order.

        Yields:
            Chunk numbers.
        """
        for number in torch.nonzero(partial.done == 0).flatten().tolist():
            if self.stop():
                return
            yield number

    def combine(self, partial: Partial) -> None:
        """Adds nothing, as there is one process.

        Raises:
            SweepStoppedError: if chunks are missing.
        """
        if not partial.complete:
            raise SweepStoppedError(partial)

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag

    def exchange(self, text: str) -> list[str]:
        """A list of this one text."""
        return [text]

    def fail(self, code: int) -> bool:
        """Does nothing: there are no others."""
        return True


class Around(Workers):
    """Workers that pass everything on to others; a subclass adds to it.

    Args:
        workers: that compute.
    """

    def __init__(self, workers: Workers):
        self._workers = workers
        self.rank, self.count, self.stop = workers.rank, workers.count, workers.stop

    def begin(self, step: int, update: int = 0) -> None:
        """Passes the numbers on."""
        self._workers.begin(step, update)

    def close(self) -> None:
        """Leaves the job."""
        self._workers.close()

    def share(self, partial: Partial) -> Iterator[int]:
        """The numbers of the chunks that this process is to compute, one at a time."""
        return self._workers.share(partial)

    def combine(self, partial: Partial) -> None:
        """Adds the workers' sums."""
        self._workers.combine(partial)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set at any worker."""
        return self._workers.any(flag)

    def exchange(self, text: str) -> list[str]:
        """Each worker's text, by rank."""
        return self._workers.exchange(text)

    def fail(self, code: int) -> bool:
        """Ends the other workers."""
        return self._workers.fail(code)
