"""The directory of a run: config, environment, metrics, checkpoints and final parameters.

Torch is imported by the methods that read or write tensors only, so that a run is found, or refused, in a moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noiseless import trust
from noiseless.errors import command
from noiseless.files import beginning, ending, environment, heads, reading, record
from noiseless.files.atomic import clear, write_json
from noiseless.files.ending import End
from noiseless.files.outside import refuse_outside
from noiseless.lock import HeldError, locked
from noiseless.plain import sealed
from noiseless.recipes.config import Config
from noiseless.screen import print_note

if TYPE_CHECKING:
    from torch import Tensor

    from noiseless.files.checkpoint import Newest
    from noiseless.files.predictions import Predictions

Row = dict[str, Any]


class RunDirectory:
    """The files of a run: `config.json`, `environment.json`, `metrics.jsonl`, `checkpoints/`, `model.safetensors`.

    With the final model come `predictions.npz` and, if the recipe has an exponential average (`ema`),
    `average.safetensors`.
    """

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model.safetensors"
        self.average = path / "average.safetensors"

    @contextmanager
    def created(self, config: Config, record: Row, first: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Makes the directory of a new run, and locks it.

        Args:
            config: resolved.
            record: content of `environment.json`.
            first: writes further files before `config.json`; a directory with that file is a run.

        Yields:
            Nothing.

        Raises:
            ValueError: if the path holds something already, which is left unchanged.
        """
        beginning.refuse_occupied(self.path, config)
        with self.locked("choose another --run-dir"):
            beginning.refuse_occupied(self.path, config)  # another process may have been faster
            beginning.clear_unfinished(self.path)
            self.checkpoints.mkdir(exist_ok=True)
            write_json(self.path / environment.FILE, record)
            first()
            write_json(self.path / reading.CONFIG, sealed(config.as_json()))
            yield

    @staticmethod
    def open(path: Path) -> RunDirectory:
        """The directory of an existing run.

        Returns:
            The directory.

        Raises:
            ValueError: if the path is not the directory of a run.
        """
        return RunDirectory(reading.find(path))

    def refuse_other_data(self, data_sha256: str) -> None:
        """Raises unless the run was made with data of this hash.

        Raises:
            ValueError: naming the data set.
        """
        try:
            recorded = environment.data_sha256(self.path)
        except ValueError as error:
            raise ValueError(
                f"{error}, so it is unknown whether the data are still the same: put the file back, or start a new run"
            ) from None
        if recorded != data_sha256:
            raise ValueError(
                f"{self.config().recipe.data.name} has changed since {self.path} was made: put the old data back, or"
                " start anew with another --run-dir"
            )

    def began(self) -> int:
        """The first step of the record: 0, or the step of the checkpoint from which the run was imported."""
        step: int = self._imported().get("step", 0)
        return step

    def _imported(self) -> Row:
        """Of which checkpoint the run was made; empty for a run that began with its first step."""
        try:
            source: Row = environment.read(self.path).get("imported", {})
        except ValueError:
            return {}
        return source

    def config(self) -> Config:
        """The run's config.

        Returns:
            The config, resolved.

        Raises:
            ValueError: if `config.json` is damaged or was made by another version.
        """
        return reading.config(self.path)

    @contextmanager
    def locked(self, otherwise: str = "change its permissions, or work on a copy") -> Iterator[None]:
        """Locks the run for this process; the lock ends with the process, however that ends.

        Args:
            otherwise: what a user can do if this directory cannot be made or written.

        Yields:
            Nothing.

        Raises:
            ValueError: if another process has locked the run, or the directory cannot be written.
        """
        lock = self.path / "lock"
        refuse_outside(self.path)
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(lock))
            except HeldError:
                process = lock.read_text().strip() or "(unknown)"
                raise ValueError(
                    f"{self.path} is in use by process {process}: wait for it, or choose another --run-dir"
                ) from None
            except OSError as error:
                verb = "write in" if self.path.is_dir() else "make"
                raise ValueError(f"cannot {verb} {self.path}: {error.strerror}; {otherwise}") from None
            with suppress(OSError):  # on a full disk the lock holds without the process number in it
                lock.write_text(str(os.getpid()))
            clear(self.path, own=beginning.FILES.__contains__)
            for folder in (self.checkpoints, self.path / "snapshots"):
                clear(folder, own=lambda name: True)
            clear(self.path / "analysis", own=lambda name: False)
            yield

    def rows(self) -> list[Row]:
        """The rows of `metrics.jsonl` in the order of their steps, without damaged lines."""
        return record.read(self.metrics).rows

    def lacking(self, until: int | None = None) -> str | None:
        """What the record lacks, as a sentence.

        Args:
            until: number of steps whose rows it should have; None: as many as its newest checkpoint and its last row.

        Returns:
            The sentence; None if the record is whole.
        """
        read, begun = record.read(self.metrics), self.began()
        if until is None:
            head = heads.newest_head(self.checkpoints)
            until = max(head.step if head else 0, read.rows[-1]["step"] + 1 if read.rows else 0)
        lost = len(set(range(begun, until)) - {row["step"] for row in read.rows})
        problems = [f"has {len(read.damaged)} damaged lines"] if read.damaged else []
        problems += [f"lacks {lost} of the {until - begun} rows before step {until}"] if lost else []
        return f"{self.metrics} {' and '.join(problems)}" if problems else None

    def begins_anew(self) -> bool:
        """Whether the run has no state yet: it has no checkpoint, or was killed within its very first one."""
        steps = heads.steps(self.checkpoints)
        if steps != [0] or self._imported():
            return not steps
        recorded = self.metrics.exists() and self.metrics.stat().st_size > 0
        return not recorded and not heads.whole(self.checkpoints / "step-00000000.json")

    def newest(self) -> Newest | None:
        """The newest undamaged checkpoint.

        Returns:
            The checkpoint; None if the run has no state yet, see `begins_anew`.

        Raises:
            ValueError: if there are checkpoints, but all are damaged.
        """
        from noiseless.files import checkpoint
        from noiseless.files.state import refuse_other_parts

        return None if self.begins_anew() else checkpoint.newest(self.checkpoints, refuse_other_parts)

    def end(self) -> End | None:
        """The end of a run that has ended; None if the final parameters are not written yet. See `ending.read`."""
        return ending.read(self.checkpoints, self.metrics) if self.model.exists() else None

    def cut_rows(self, step: int) -> str | None:
        """Removes the rows of a step and later ones, see `record.cut`; returns a message about damaged lines."""
        return record.cut(self.metrics, step)

    def finish(
        self,
        state: dict[str, Tensor],
        average: dict[str, Tensor] | None = None,
        last_predictions: Predictions | None = None,
    ) -> None:
        """Writes the run's final files; the parameters come last, because they mark its end.

        Args:
            state: final parameters and buffers.
            average: their exponential average; None: the run has none.
            last_predictions: of the last evaluation; None: there was none.
        """
        from noiseless.files import predictions
        from noiseless.files.parameters import write_parameters

        if last_predictions is not None:
            predictions.write(self.path, last_predictions)
        if average is not None:
            write_parameters(self.average, average)
        write_parameters(self.model, state)

    def state(self, average: bool = False) -> dict[str, Tensor]:
        """The final parameters and buffers, or those of the newest checkpoint if the run has not ended.

        Args:
            average: whether to read their exponential average instead.

        Returns:
            Tensors by state name.

        Raises:
            ValueError: if there are none, or they cannot be read.
        """
        from noiseless.files import checkpoint
        from noiseless.files.parameters import read_parameters

        end, name = self.end(), "average" if average else "model"
        if end is not None:
            file = self.average if average else self.model
            state = read_parameters(file, sealed=True)
            if checkpoint.digest(state) != end.digests.get(name):
                raise ValueError(
                    f"{file} is not what this run wrote: its digest is not that of the record and the last checkpoint;"
                    f" remove {self.model}, and {command('resume', self.path, *trust.flags())} writes it again"
                )
            return state
        newest = self.newest()
        if newest is None:
            raise ValueError(f"{self.path} has no checkpoint yet")
        self.tell(newest)
        state_then: dict[str, Tensor] | None = newest.state[name]
        if state_then is None:
            raise ValueError(f"the newest checkpoint of {self.path} holds no average of the model's states")
        return state_then

    def tell(self, newest: Newest) -> None:
        """Prints a note if a newer checkpoint than the one that is used is damaged."""
        for problem in newest.damaged:
            print_note(f"{problem}; the one of step {newest.step} is used")
