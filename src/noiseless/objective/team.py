"""The workers of a job: chunks are claimed in the job's store, sums are added up by torch.distributed.

Steps 2 and 5 of a step. A worker that fails says so in the store, and the others end with it; one that vanishes is
missed by its heartbeats.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

# Optimizers import this at their first use. Its functions have the group of that moment as a default argument: imported
# after `Team` has made one, it would keep the group and its threads beyond `close`, and a thread that releases a tensor
# while Python ends aborts the process.
import torch.distributed.nn.functional  # noqa: F401
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from noiseless.exits import first_worker
from noiseless.objective.devices import Ahead, agreed
from noiseless.objective.exactsum import reduce
from noiseless.objective.partial import Partial
from noiseless.objective.workers import JobFailedError, SweepStoppedError, WorkerLostError, Workers

BEAT_SECONDS = 0.5
"""time between two heartbeats of a worker, also while it computes"""
LOST_SECONDS = 40.0
"""a worker without a heartbeat for this time counts as lost"""
LEAVING_SECONDS = 4.0
"""as `LOST_SECONDS`, if this worker was told to stop, which torchrun does when another worker has died"""
TIMEOUT_SECONDS = 60.0
"""timeout of a collective, which begins when all workers have reached it"""


TELLING_SECONDS = 10.0
"""time in which a worker that has failed before it joined reaches the job's store"""
JOINING_SECONDS = 0.005
"""time between two looks for the workers that have not joined"""


def fail_before_joining(code: int) -> bool:
    """Ends the other workers of this process's job, which it has not joined yet, because it has failed.

    Args:
        code: exit code of all workers.

    Returns:
        Whether this worker is the first that has failed, so that its message is to be printed.
    """
    try:
        store, _, _ = _store_of_job(TELLING_SECONDS)
        return _tell_failure(store, code)
    except RuntimeError:  # without the store, there is no job any more
        return first_worker()


class Team(Workers):
    """The processes of a job (gloo on CPUs, nccl on GPUs); this is one of them.

    A process group that exists already, of Ray Train for instance, gives the processes and their store. The sums have a
    group of their own beside it, which `close` ends; the existing one is left as it is, whatever its backend and
    timeout. Without one, a group is made by the variables that torchrun sets.

    Args:
        stop: see `Workers`.
    """

    def __init__(self, stop: Callable[[], bool] = lambda: False):
        self.stop = stop
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        self._group: dist.ProcessGroup | None = None
        """of the sums; None: the default group, which this object has made"""
        self._store: Store
        self._number = 0
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._closed = threading.Event()
        self._beat = threading.Thread(target=self._keep_beating, daemon=True)
        self.rank, self.count = 0, 0
        try:
            if dist.is_initialized():
                self.rank, self.count = dist.get_rank(), dist.get_world_size()
                group: Any = dist.new_group(timeout=_TIMEOUT, backend=backend)
                self._group = group
                self._store = PrefixStore(self._common_name(), dist.distributed_c10d._get_default_store())
            else:
                self._store, self.rank, self.count = _store_of_job()
                global _joined
                _joined += 1
                self._ask("set", f"beat/{self.rank}", "0")  # before the others may look for it
                self._await_all()
                dist.init_process_group(
                    backend, store=self._store, rank=self.rank, world_size=self.count, timeout=_TIMEOUT
                )
        except WorkerLostError:
            raise
        except RuntimeError as error:
            raise WorkerLostError(_UNREACHED.format(self.rank, self.count, error)) from error
        self._beat.start()
        atexit.register(self.close)
        self._gather()  # a worker that left while another still connects would look like a lost one

    def _common_name(self) -> str:
        """A name that no earlier team of this store has had, the same in all workers."""
        name = torch.frombuffer(bytearray(uuid.uuid4().bytes), dtype=torch.uint8)
        dist.broadcast(name, 0, self._group)
        return f"noiseless-{bytes(name.tolist()).hex()}"

    def begin(self, step: int, update: int = 0) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Leaves the job. Also called at the end of the process, when no thread may be at work."""
        if not self._closed.is_set():
            self._closed.set()
            self._beat.join()
            atexit.unregister(self.close)
            with suppress(RuntimeError, ValueError):  # the other workers may have left, or the user ended all groups
                dist.destroy_process_group(self._group)

    def share(self, partial: Partial) -> Iterator[int]:
        """The numbers of chunks that no worker has done; an atomic counter in the job's store hands them out.

        Yields:
            Chunk numbers.

        Raises:
            ValueError: if workers compute on devices of different kinds.
        """
        self._gather()
        done = agreed(partial.done, partial.device, self.rank, self._maximum)
        waiting = torch.nonzero(done == 0).flatten().tolist()
        counter, ahead = f"claimed/{self._number}", Ahead(partial.device)
        looked = time.monotonic()
        while True:
            if time.monotonic() - looked > BEAT_SECONDS:
                self._look_for_a_failure()
                looked = time.monotonic()
            if self.stop():
                self._ask("add", counter, len(waiting))  # so that no chunk is left for any worker
                return
            claimed = self._ask("add", counter, 1) - 1
            if claimed >= len(waiting):
                return
            yield waiting[claimed]
            ahead.sent()

    def combine(self, partial: Partial) -> None:
        """Sums over the workers; the bits do not depend on their order.

        Raises:
            SweepStoppedError: if a worker was told to stop and chunks are missing; all workers raise it.
        """
        self._gather()
        reduce(tuple(partial.vectors.values()), self._maximum, self._total, (partial.scalars, partial.done))
        if not partial.complete:
            raise SweepStoppedError(partial)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set at any worker."""
        self._gather()
        known = torch.tensor([flag], dtype=torch.uint8)
        self._maximum([known])
        return bool(known)

    def exchange(self, text: str) -> list[str]:
        """Each worker's text, by rank."""
        self._ask("set", f"text/{self._number + 1}/{self.rank}", text)
        self._gather()
        texts = [self._ask("get", f"text/{self._number}/{k}") for k in range(self.count)]
        return [text.decode() for text in texts]

    def fail(self, code: int) -> bool:
        """Tells the other workers, who look for this while they compute and while they wait."""
        with suppress(RuntimeError):
            return _tell_failure(self._store, code)
        return True

    def _await_all(self) -> None:
        """Waits until all workers are here. A group that lacked one would be waited for until its timeout.

        Raises:
            WorkerLostError: if one of them does not come.
            JobFailedError: if one of them has failed before.
        """
        self._ask("add", "joining", 1)
        begun, told = time.monotonic(), None
        while self._ask("add", "joining", 0) < self.count:
            self._look_for_a_failure()
            now = time.monotonic()
            told = now if told is None and self.stop() else told
            if now - begun > TIMEOUT_SECONDS or (told is not None and now - told > LEAVING_SECONDS):
                raise WorkerLostError(_UNREACHED.format(self.rank, self.count, "one of them has not begun"))
            time.sleep(JOINING_SECONDS)

    def _gather(self) -> None:
        """Waits until all workers have called this, however long a chunk takes.

        Raises:
            WorkerLostError: if one of them is lost.
            JobFailedError: if one of them has failed.
        """
        self._number += 1
        if self._ask("add", f"here/{self._number}", 1) == self.count:
            self._ask("set", f"go/{self._number}", "1")
        arrived = looked = time.monotonic()
        while not self._ask("check", [f"go/{self._number}"]):
            now = time.monotonic()
            time.sleep(min(max(1e-4, (now - arrived) / 8), 0.01))  # at most an eighth of the wait too long
            if now - looked > BEAT_SECONDS:
                self._look_for_a_failure()
                self._look_for_the_lost()
                looked = now
        if self.rank == 0 and self._number > 2:  # all workers are past it
            for key in ("here", "go", "claimed"):
                self._ask("delete_key", f"{key}/{self._number - 2}")

    def _look_for_a_failure(self) -> None:
        if self._ask("check", [FAILURE]):
            raise JobFailedError(int(self._ask("get", FAILURE)))

    def _look_for_the_lost(self) -> None:
        now = time.monotonic()
        for rank in range(self.count):
            beat = self._ask("get", f"beat/{rank}")
            if rank not in self._seen or self._seen[rank][0] != beat:
                self._seen[rank] = (beat, now)
            elif now - self._seen[rank][1] > (LEAVING_SECONDS if self.stop() else LOST_SECONDS):
                raise WorkerLostError(
                    f"worker {rank} of {self.count} has vanished: it sends no heartbeats. The last"
                    " snapshot is kept; start the same command again to continue"
                )

    def _ask(self, verb: str, *arguments: Any) -> Any:
        try:
            return getattr(self._store, verb)(*arguments)
        except RuntimeError as error:
            raise WorkerLostError(_STORE_GONE.format(error)) from error

    def _total(self, tensors: list[Tensor]) -> None:
        self._reduce(tensors, dist.ReduceOp.SUM)

    def _maximum(self, tensors: list[Tensor]) -> None:
        self._reduce(tensors, dist.ReduceOp.MAX)

    def _reduce(self, tensors: list[Tensor], operation: dist.ReduceOp.RedOpType) -> None:
        try:
            for under_way in [dist.all_reduce(tensor, operation, self._group, async_op=True) for tensor in tensors]:
                under_way.wait()
        except RuntimeError as error:
            lost = WorkerLostError(
                f"a worker has vanished while sums were added up ({error}); start the same command again to continue"
            )
            lost.intact = False
            raise lost from error

    def _keep_beating(self) -> None:
        with suppress(RuntimeError):  # without the store, `_ask` raises an error
            store = self._store.clone()
            beats = 0
            while not self._closed.wait(BEAT_SECONDS if beats else 0):
                beats += 1
                store.set(f"beat/{self.rank}", str(beats))


_joined = 0
"""number of teams that this process has made in the store of its job, as every other worker has"""
FAILURE = "failure"
"""key in the job's store of the exit code of the first worker that has failed"""
_TIMEOUT = timedelta(seconds=TIMEOUT_SECONDS)
_UNREACHED = "worker {} of {} cannot reach the others ({}); start the same command again to continue"
_STORE_GONE = "the job's store, on its first node, does not answer ({}); start the same command again to continue"


def _store_of_job(seconds: float = TIMEOUT_SECONDS) -> tuple[Store, int, int]:
    """The store of the job to which this process belongs, its rank, and the number of workers."""
    shared, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
    # torchrun keeps its store when it restarts workers, as many or fewer; it still holds the old ones' addresses, and
    # what the earlier teams of these processes have counted
    launch = f"launch-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-of-{count}-team-{_joined}"
    return PrefixStore(launch, shared), rank, count


def _tell_failure(store: Store, code: int) -> bool:
    """Writes an exit code for all workers into the store; returns whether it is the first one."""
    if store.add("failures", 1) > 1:
        return False
    store.set(FAILURE, str(code))
    return True
