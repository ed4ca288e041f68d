"""Snapshots: the progress of a sweep on disk, so that a killed step goes on where it was, with any number of workers.

Each worker writes what it has summed itself, in turn into two files; so a damaged one is recognised by its hash and
the one before it used. A file tells which chunks are in it. After a restart, files are merged, the fullest first, as
long as no chunk would be counted twice: what overlaps is the same work, written again.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import safetensors.torch

from noiseless.files.atomic import write_bytes
from noiseless.objective.partial import Partial
from noiseless.objective.workers import SweepStoppedError, WorkerLostError, Workers

HASH_BYTES = 32


class Snapshots(Workers):
    """Workers whose sweeps are written down every so often.

    Args:
        workers: who compute.
        directory: of the files, made when needed.
        seconds: between two of a worker's snapshots.
        theta_digest: of the parameters: a snapshot counts at the parameters where it was made only.
    """

    def __init__(self, workers: Workers, directory: Path, seconds: float, theta_digest: Callable[[], str]):
        self._workers = workers
        self.rank, self.count, self.stop = workers.rank, workers.count, workers.stop
        self._directory, self._seconds, self._theta_digest = directory, seconds, theta_digest
        self._launch = uuid.uuid4().hex[:12]
        self._step, self.sweep, self._writes = 0, 0, 0

    def begin(self, step: int) -> None:
        """Names the step whose sweeps come next; snapshots of other steps are not needed any more."""
        self._step, self.sweep = step, 0
        if self.rank == 0:
            for path in self._directory.glob("*.partial"):
                if not path.name.startswith(self._step_name()):
                    path.unlink(missing_ok=True)

    def share(self, partial: Partial) -> Iterator[int]:
        """Those that neither a worker nor a snapshot has done.

        Yields:
            Chunk numbers.
        """
        self.sweep += 1
        self._writes = 0
        if self.rank == 0:
            self._restore(partial)
        written = time.monotonic()
        for number in self._workers.share(partial):
            yield number
            if time.monotonic() - written >= self._seconds:
                self._write(partial)
                written = time.monotonic()

    def combine(self, partial: Partial) -> None:
        """Sums over the workers, and writes the sum down where the sweep was long or stopped.

        Raises:
            SweepStoppedError: if a worker was told to stop and chunks are missing.
            WorkerLostError: if a worker is gone; what this one has summed is written down.
        """
        own = set(self._directory.glob(f"{self._name()}*"))
        try:
            self._workers.combine(partial)
        except WorkerLostError as lost:
            if lost.intact:
                self._write(partial)
            raise
        except SweepStoppedError:
            self._write_whole(partial, own)
            raise
        if self._writes:
            self._write_whole(partial, own)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set at any worker."""
        return self._workers.any(flag)

    def exchange(self, text: str) -> list[str]:
        """Each worker's text, by rank."""
        return self._workers.exchange(text)

    def _step_name(self) -> str:
        return f"step-{self._step:08d}"

    def _name(self) -> str:
        return f"{self._step_name()}-sweep-{self.sweep:06d}"

    def _write_whole(self, partial: Partial, replaced: set[Path]) -> None:
        if self.rank == 0:
            written = self._write(partial)
            for path in replaced - {written}:
                path.unlink(missing_ok=True)

    def _write(self, partial: Partial) -> Path:
        self._directory.mkdir(exist_ok=True)
        content = safetensors.torch.save(partial.tensors(), {"theta": self._theta_digest()})
        path = self._directory / f"{self._name()}-worker-{self.rank}-{self._launch}-{self._writes % 2}.partial"
        write_bytes(path, hashlib.sha256(content).digest() + content)
        self._writes += 1
        return path

    def _restore(self, partial: Partial) -> None:
        paths = set(self._directory.glob(f"{self._name()}*.partial"))
        found = [made for path in sorted(paths) if (made := self._read(path, partial)) is not None]
        for made in sorted(found, key=lambda made: int(made.done.sum()), reverse=True):
            if not partial.overlaps(made):
                partial.merge(made)
        if paths:
            self._write_whole(partial, paths)

    def _read(self, path: Path, like: Partial) -> Partial | None:
        content = path.read_bytes()
        digest, content = content[:HASH_BYTES], content[HASH_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            return None  # cut off or damaged: its work is done again
        length = int.from_bytes(content[:8], "little")
        if f'"theta":"{self._theta_digest()}"'.encode() not in content[8 : 8 + length]:
            return None
        return like.filled(safetensors.torch.load(content))
