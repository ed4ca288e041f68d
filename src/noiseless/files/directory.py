"""The directory of a run: config, environment, metrics, checkpoints and final parameters."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noiseless.files import checkpoint, predictions, reading
from noiseless.files.atomic import write_bytes, write_json
from noiseless.files.parameters import read_parameters, write_parameters
from noiseless.files.predictions import Predictions
from noiseless.lock import HeldError, locked
from noiseless.plainfiles import refuse_outside
from noiseless.recipes.config import Config

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
        self._refuse_occupied(config)
        with self.locked("choose another --run-dir"):
            self._refuse_occupied(config)  # another process may have been faster
            self.checkpoints.mkdir(exist_ok=True)
            write_json(self.path / "environment.json", record)
            first()
            write_json(self.path / "config.json", config.as_json())
            yield

    def _refuse_occupied(self, config: Config) -> None:
        """Raises if the path holds a run or other files."""
        path = self.path
        if (path / "config.json").exists():
            same = self.config().recipe == config.recipe
            raise ValueError(
                f"{path} holds a run already, {'of the same' if same else 'made by another'} config:"
                f" {f'go on with noiseless resume {path}, or ' if same else ''}choose another --run-dir"
            )
        if path.exists() and not (path.is_dir() and self._hardly_begun()):
            raise ValueError(f"{path} is not an empty directory: choose another --run-dir")

    def _hardly_begun(self) -> bool:
        """Whether the directory is empty or holds only what `created` leaves if it is killed before the config."""
        names = {p.name for p in self.path.iterdir()}
        leftovers = {name for name in names if name.startswith((".environment.json.", ".config.json."))}
        if "lock" in names:
            leftovers |= {"lock", "environment.json", "checkpoints"}
        return names <= leftovers and not any(self.checkpoints.glob("*"))

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
            recorded = json.loads((self.path / "environment.json").read_text())["data_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path / 'environment.json'} cannot be read ({error!r}), so it is unknown whether the data are"
                " still the same: put the file back, or start a new run"
            ) from None
        if recorded != data_sha256:
            raise ValueError(
                f"{self.config().recipe.data.name} has changed since {self.path} was made: put the old data back, or"
                " start anew with another --run-dir"
            )

    def began(self) -> int:
        """The first step of the record: 0, or the step of the checkpoint from which the run was imported."""
        try:
            return int(json.loads((self.path / "environment.json").read_text())["imported"]["step"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

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
            yield

    def rows(self) -> list[Row]:
        """The rows of `metrics.jsonl`, without an incomplete last line.

        Returns:
            The rows, each with at least its step.

        Raises:
            ValueError: if a line is not a row.
        """
        if not self.metrics.exists():
            return []
        rows = []
        for number, line in enumerate(self.metrics.read_text(errors="replace").splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError(f"{self.metrics}, line {number} is not a row of a run: {line[:40]!r}; remove the line")
            rows.append(row)
        return rows

    def cut_rows(self, step: int) -> None:
        """Removes the rows of a step and later ones: the run computes them again."""
        earlier = [row for row in self.rows() if row["step"] < step]
        write_bytes(self.metrics, "".join(json.dumps(row) + "\n" for row in earlier).encode())

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
        if self.model.exists():
            return read_parameters(self.average if average else self.model, sealed=True)
        newest = checkpoint.newest(self.checkpoints)
        if newest is None:
            raise ValueError(f"{self.path} has no checkpoint yet")
        model: dict[str, Tensor] | None = newest.state["average"] if average else newest.state["model"]
        if model is None:
            raise ValueError(f"the newest checkpoint of {self.path} holds no average of the model's states")
        return model


def environment(config: Config, data_sha256: str, command: list[str]) -> Row:
    """What the bits of a run may depend on besides its config: versions, machine, threads, revision, data, command."""
    device = config.settings.device
    return {
        "noiseless": metadata.version("noiseless"),
        "python": platform.python_version(),
        "packages": {
            name: metadata.version(name) for name in ("torch", "torchvision", "numpy", "scikit-learn", "safetensors")
        },
        "platform": platform.platform(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "threads": torch.get_num_threads(),
        "data_sha256": data_sha256,
        "git_revision": git_revision(),
        "command": command,
    }


def _processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_revision() -> str | None:
    """The git revision of noiseless; None if it was installed as a package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
