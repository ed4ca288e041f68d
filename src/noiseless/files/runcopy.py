"""A copy of a run in another directory, for storage on which a run itself cannot be kept, such as a mounted bucket.

Files are written once, from begin to end: nothing is locked, appended to or renamed. A checkpoint's JSON comes after
its tensors, as in the run, so that a copy that was cut off is recognised, and the checkpoint before it is used.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from noiseless.errors import command
from noiseless.files import heads, reading
from noiseless.files.directory import RunDirectory
from noiseless.files.outside import refuse_outside
from noiseless.files.storage import FLAGS, Names
from noiseless.plain import real

FILES = (
    "environment.json", "metrics.jsonl", "predictions.npz", "average.safetensors", "model.safetensors", "report.html",
)  # fmt: skip
"""what is copied besides `config.json` and checkpoints, where it exists"""


def refuse_target(target: Path, run: Path, names: Names = FLAGS) -> None:
    """Raises unless a directory can take the copy of a run: it is new or empty, or has an earlier copy of this run.

    Args:
        target: of the copy.
        run: directory of the run; need not exist.
        names: of the arguments that the message names.

    Raises:
        ValueError: saying what is there.
    """
    name = names.copy_to
    assert name is not None
    inner, outer = real(target), real(run)
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ValueError(f"{name}{target} and the run's directory {run} must not hold each other: choose another")
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{name}{target} is not a directory: choose another")
    refuse_outside(target)
    if not any(target.iterdir()):
        return
    back = shlex.join(["cp", "-r", str(target), str(run)])
    theirs, mine = target / reading.CONFIG, run / reading.CONFIG
    if not theirs.exists():
        raise ValueError(f"{name}{target} holds other files than a run's: choose a new or empty directory")
    if not mine.exists():
        go_on = command("resume", run, "--copy-to", target) if names is FLAGS else "the same call"
        raise ValueError(
            f"{name}{target} holds a run already, and {run} none: copy it back ({back}) and go on with"
            f" {go_on}, or choose another {name.rstrip(' =')}"
        )
    if theirs.read_bytes() != mine.read_bytes():
        raise ValueError(f"{name}{target} holds another run than {run}: choose a new or empty directory")


class RunCopy:
    """Keeps the copy of a run up to date; a failure is told, and ends nothing.

    Args:
        directory: of the run.
        target: of the copy, see `refuse_target`.
        tell: gets messages for the user.
    """

    def __init__(self, directory: RunDirectory, target: Path, tell: Callable[[str], None]):
        self._run, self._target, self._tell = directory, target, tell
        self._copied: dict[str, tuple[int, int]] = {}
        """size and time of each file of the run when it was copied"""
        self._failed = False

    def update(self) -> None:
        """Copies what has changed since the last call: checkpoints that are complete, the record, the final files."""
        try:
            self._update()
        except OSError as error:
            cause = error.strerror or str(error) or type(error).__name__
            self._tell(
                f"the copy in {self._target} lacks the newest files ({cause}: {error.filename}). The run goes on, and"
                " the next checkpoint tries again"
            )
            self._failed = True
        else:
            if self._failed:
                self._tell(f"the copy in {self._target} is complete again")
            self._failed = False

    def _update(self) -> None:
        steps = heads.steps(self._run.checkpoints)
        (self._target / self._run.checkpoints.name).mkdir(parents=True, exist_ok=True)
        self._copy(reading.CONFIG)
        for step in steps:
            stem = f"{self._run.checkpoints.name}/step-{step:08d}"
            if (self._run.path / f"{stem}.json").exists():
                self._copy(f"{stem}.safetensors")
                self._copy(f"{stem}.json")
        for name in FILES:
            if (self._run.path / name).exists():
                self._copy(name)
        for path in (self._target / self._run.checkpoints.name).glob("step-*"):
            if heads.NAME.fullmatch(path.name) and heads.number(path) not in steps:
                with suppress(OSError):  # a store may forbid removing; an old checkpoint more is no failure
                    path.unlink()

    def _copy(self, name: str) -> None:
        """Copies a file, unless this was done since it has changed last.

        Raises:
            OSError: naming the copy, also if it is shorter than the file.
        """
        file, copy = self._run.path / name, self._target / name
        with file.open("rb") as source:
            state = os.fstat(source.fileno())
            if self._copied.get(name) == (state.st_size, state.st_mtime_ns):
                return
            try:
                with copy.open("wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
                size = copy.stat().st_size
            except OSError as error:
                error.filename = str(copy)
                raise
        if size != state.st_size:
            raise OSError(None, f"{size} of {state.st_size} bytes arrived", str(copy))
        self._copied[name] = (state.st_size, state.st_mtime_ns)
