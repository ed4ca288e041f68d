"""Snapshots: the partial sums of an unfinished sweep on disk, with which a killed step goes on after a restart.

Each worker writes its own partial sum, alternately to two files: if a hash shows that one is damaged, the other is
used. A file says which chunks are in it. After a restart, with any number of workers, the files are merged, the one
with most chunks first; a file with a chunk that is already counted is skipped.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import safetensors.torch

from noiseless.errors import reason
from noiseless.files.atomic import write_bytes
from noiseless.files.heads import DAMAGED
from noiseless.objective.partial import Partial
from noiseless.objective.workers import Around, JobFailedError, SweepStoppedError, WorkerLostError, Workers
from noiseless.plain import read_file
from noiseless.screen import print_note

HASH_BYTES = 32


class Snapshots(Around):
    """Workers that write snapshots of their sweeps.

    Args:
        workers: that compute.
        directory: of the snapshots, made when needed.
        seconds: between two snapshots of a worker.
        theta_digest: digest of the parameters; a snapshot is used only at the parameters at which it was written.
    """

    def __init__(self, workers: Workers, directory: Path, seconds: float, theta_digest: Callable[[], str]):
        super().__init__(workers)
        self._directory, self._seconds, self._theta_digest = directory, seconds, theta_digest
        self._launch = uuid.uuid4().hex[:12]
        self._step, self._update, self.sweep, self._writes = 0, 0, 0, 0

    def begin(self, step: int, update: int = 0) -> None:
        """Names the update whose sweeps come next, and removes the snapshots of other updates."""
        self._step, self._update, self.sweep = step, update, 0
        if self.rank == 0:
            for path in self._directory.glob("*.partial"):
                if not path.name.startswith(self._update_name()):
                    _remove(path)

    def share(self, partial: Partial) -> Iterator[int]:
        """The chunks that this worker is to compute: those that neither a worker nor a snapshot has done.

        Yields:
            Chunk numbers.

        Raises:
            JobFailedError: if another worker has failed; this worker's sum is written to disk.
        """
        self.sweep += 1
        self._writes = 0
        if self.rank == 0:
            self._restore(partial)
        written = time.monotonic()
        try:
            for number in self._workers.share(partial):
                yield number
                if time.monotonic() - written >= self._seconds:
                    self._write(partial)
                    written = time.monotonic()
        except JobFailedError:
            self._write(partial)
            raise

    def combine(self, partial: Partial) -> None:
        """Adds the workers' sums, and writes the total to disk if the sweep was long or was stopped.

        Raises:
            SweepStoppedError: if a worker was told to stop and chunks are missing.
            WorkerLostError: if a worker is gone; this worker's sum is written to disk, unless adding had begun.
            JobFailedError: if another worker has failed; this worker's sum is written to disk.
        """
        snapshots = set(self._directory.glob(f"{self._name()}*"))
        try:
            self._workers.combine(partial)
        except WorkerLostError as lost:
            if lost.intact:
                self._write(partial)
            raise
        except JobFailedError:
            self._write(partial)
            raise
        except SweepStoppedError:
            self._write_total(partial, snapshots)
            raise
        if self._writes:
            self._write_total(partial, snapshots)

    def _update_name(self) -> str:
        return f"step-{self._step:08d}-update-{self._update:06d}"

    def _name(self) -> str:
        return f"{self._update_name()}-sweep-{self.sweep:06d}"

    def _write_total(self, partial: Partial, replaced: set[Path]) -> None:
        """Writes a snapshot of all workers' work, in the first worker, and removes those that it replaces."""
        if self.rank == 0:
            written = self._write(partial)
            for path in replaced - {written}:
                _remove(path)

    def _write(self, partial: Partial) -> Path:
        """Writes a snapshot; returns its path."""
        self._directory.mkdir(exist_ok=True)
        content = safetensors.torch.save(partial.tensors(), {"theta": self._theta_digest()})
        path = self._directory / f"{self._name()}-worker-{self.rank}-{self._launch}-{self._writes % 2}.partial"
        write_bytes(path, hashlib.sha256(content).digest() + content)
        self._writes += 1
        return path

    def _restore(self, partial: Partial) -> None:
        """Merges the snapshots of this sweep into a partial sum, and replaces them by one snapshot."""
        paths = set(self._directory.glob(f"{self._name()}*.partial"))
        saved = [old for path in sorted(paths) if (old := self._read(path, partial)) is not None]
        for old in sorted(saved, key=lambda old: int(old.done.sum()), reverse=True):
            if not partial.overlaps(old):
                partial.merge(old)
        if paths:
            self._write_total(partial, paths)

    def _read(self, path: Path, like: Partial) -> Partial | None:
        """The partial sum in a snapshot; None if the file is damaged or of other parameters."""
        try:
            content = read_file(path)
        except OSError as error:
            _set_aside(path, error.strerror or type(error).__name__)
            return None
        digest, content = content[:HASH_BYTES], content[HASH_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            return None  # incomplete or damaged: its chunks are computed again
        length = int.from_bytes(content[:8], "little")
        if f'"theta":"{self._theta_digest()}"'.encode() not in content[8 : 8 + length]:
            return None
        try:
            return like.filled(safetensors.torch.load(content))
        except DAMAGED as error:  # of another model or partition into blocks
            _set_aside(path, reason(error))
            return None


def _remove(path: Path) -> None:
    """Removes a snapshot that is not needed; what cannot be removed as a file is set aside."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _set_aside(path, error.strerror or type(error).__name__)


def _set_aside(path: Path, cause: str) -> None:
    """Renames a snapshot that cannot be used, so that it is not looked at again; its chunks are computed again."""
    aside = path.with_suffix(".unreadable")
    with suppress(OSError):
        path.replace(aside)
        print_note(f"{path} cannot be read ({cause}): it is set aside as {aside.name}, and its part is computed again")
