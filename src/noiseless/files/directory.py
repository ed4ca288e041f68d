"""A run's directory: config, environment, metrics, checkpoints, final parameters. Everything a run leaves is here."""

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
from noiseless.recipes.config import Config

Row = dict[str, Any]


class RunDirectory:
    """The files of a run: `config.json`, `environment.json`, `metrics.jsonl`, `checkpoints/`, `model.safetensors`.

    Beside the model, `predictions.npz`, and where an exponential average is kept (`ema`), `average.safetensors`.
    """

    def __init__(self, path: Path):
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model.safetensors"
        self.average = path / "average.safetensors"

    @contextmanager
    def created(self, config: Config, record: Row, first: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Makes the directory of a new run, and holds it.

        Args:
            config: resolved.
            record: what `environment.json` says.
            first: writes what must be there before the config, which is what makes the directory a run.

        Yields:
            Nothing.

        Raises:
            ValueError: if something is there already; nothing of it is touched.
        """
        self._refuse_taken(config)
        with self.locked("choose another --run-dir"):
            self._refuse_taken(config)  # another process may have been faster
            self.checkpoints.mkdir(exist_ok=True)
            write_json(self.path / "environment.json", record)
            first()
            write_json(self.path / "config.json", config.as_json())
            yield

    def _refuse_taken(self, config: Config) -> None:
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
        """Whether nothing is here, or just what `created` leaves where it is cut off before the config is written."""
        names = {p.name for p in self.path.iterdir()}
        ours = {name for name in names if name.startswith((".environment.json.", ".config.json."))}
        if "lock" in names:
            ours |= {"lock", "environment.json", "checkpoints"}
        return names <= ours and not any(self.checkpoints.glob("*"))

    @staticmethod
    def open(path: Path) -> RunDirectory:
        """The directory of an existing run.

        Returns:
            It.

        Raises:
            ValueError: if the path is not the directory of a run.
        """
        return RunDirectory(reading.find(path))

    def refuse_other_data(self, data_sha256: str) -> None:
        """Raises if the run was made with other data.

        Raises:
            ValueError: naming the data set.
        """
        try:
            recorded = json.loads((self.path / "environment.json").read_text())["data_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path / 'environment.json'} cannot be read ({error!r}), so whether the data are still the same"
                " is not known: put it back, or start a new run"
            ) from None
        if recorded != data_sha256:
            raise ValueError(
                f"{self.config().recipe.data.name} has changed since {self.path} was made: put the old data back, or"
                " start anew with another --run-dir"
            )

    def began(self) -> int:
        """The first step of the record: 0, or where the checkpoint stood from which the run was imported."""
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
        """Holds the run for this process; the lock goes with the process, however it ends.

        Args:
            otherwise: what a user can do where this directory cannot be made or written.

        Yields:
            Nothing.

        Raises:
            ValueError: if another process holds it, or it cannot be written.
        """
        lock = self.path / "lock"
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
            with suppress(OSError):  # a full disk keeps no number, but the lock all the same
                lock.write_text(str(os.getpid()))
            yield

    def rows(self) -> list[Row]:
        """The rows of `metrics.jsonl`; a last line that was cut off is left out.

        Returns:
            Each with at least its step.

        Raises:
            ValueError: if a line is something else.
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
                raise ValueError(f"{self.metrics}, line {number} is no row of a run: {line[:40]!r}; remove the line")
            rows.append(row)
        return rows

    def cut_rows(self, step: int) -> None:
        """Keeps the rows before a step: those after the checkpoint are computed anew."""
        kept = [row for row in self.rows() if row["step"] < step]
        write_bytes(self.metrics, "".join(json.dumps(row) + "\n" for row in kept).encode())

    def finish(
        self,
        state: dict[str, Tensor],
        average: dict[str, Tensor] | None = None,
        found: Predictions | None = None,
    ) -> None:
        """Writes the run's final files; the parameters come last, as they mark its end.

        Args:
            state: final parameters and buffers.
            average: their exponential average; None: the run keeps none.
            found: predictions of the last evaluation; None: there was none.
        """
        if found is not None:
            predictions.write(self.path, found)
        if average is not None:
            write_parameters(self.average, average)
        write_parameters(self.model, state)

    def state(self, average: bool = False) -> dict[str, Tensor]:
        """The final parameters and buffers, or those of the newest checkpoint where the run has not ended.

        Args:
            average: their exponential average instead, of a run that keeps one.

        Returns:
            Tensors by state name.

        Raises:
            ValueError: if there are none, or they cannot be read.
        """
        if self.model.exists():
            return read_parameters(self.average if average else self.model, sealed=True)
        found = checkpoint.newest(self.checkpoints)
        if found is None:
            raise ValueError(f"{self.path} has no checkpoint yet")
        model: dict[str, Tensor] | None = found.state["average"] if average else found.state["model"]
        if model is None:
            raise ValueError(f"the newest checkpoint of {self.path} holds no average of the model's states")
        return model


def environment(config: Config, data_sha256: str, command: list[str]) -> Row:
    """What the bits of a run may depend on beside its config: versions, machine, threads, revision, data, command."""
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
        "git_revision": _git_revision(),
        "command": command,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """The revision of the program's own checkout; None where it was installed as a package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        asked = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
