"""The address of a run's state, as commands take it: `RUN`, `RUN@STEP`, or the path of a checkpoint file. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noiseless.files import heads
from noiseless.files.directory import RunDirectory


@dataclass(frozen=True)
class StateAddress:
    """A run, and one of its states by the number of steps done."""

    directory: RunDirectory
    step: int | None
    """steps done; None: the end of the run, or its newest checkpoint if it has not ended"""

    @staticmethod
    def read(text: str) -> StateAddress:
        """Parses `RUN`, `RUN@STEP`, or the path of a checkpoint file.

        Returns:
            The address.

        Raises:
            ValueError: if there is no such run, or the step is not a whole number.
        """
        path = Path(text)
        if path.parent.name == "checkpoints" and path.name.startswith("step-"):
            digits = path.name.removeprefix("step-").partition(".")[0]
            if digits.isdecimal():
                return StateAddress(RunDirectory.open(path.parent.parent), int(digits))
        run, at, step = text.rpartition("@")
        if not at or path.exists():
            return StateAddress(RunDirectory.open(path), None)
        if not step.isdecimal():
            raise ValueError(f"{text}: the step must be a whole number of steps done, as in {run}@100, not {step!r}")
        return StateAddress(RunDirectory.open(Path(run)), int(step))

    @property
    def follows(self) -> bool:
        """Whether the state follows from the run's config, without a file."""
        return self.step == 0 and self.directory.config().recipe.model.init is None

    def refuse_missing(self) -> None:
        """Refuses a step of which the run has no file, by the names of its files: without torch, in a moment.

        Raises:
            ValueError: with the steps whose states it has.
        """
        if self.step is not None and self.step not in self._steps() and not self.follows:
            raise self.missing()

    def missing(self) -> ValueError:
        """The error of a step of which the run has no state, with the steps whose states it has."""
        steps = self._steps()
        last = ", ".join(map(str, steps[-8:]))
        listed = f"it has those of {'..., ' if len(steps) > 8 else ''}{last}" if steps else "it has none"
        return ValueError(
            f"{self.directory.path} has no state of step {self.step}: {listed}; noiseless train --keep-every N keeps"
            " one every N steps"
        )

    def _steps(self) -> list[int]:
        """Steps that a file of the run names, whole or not."""
        end = self.directory.end()
        return sorted({*heads.steps(self.directory.checkpoints), *([end.step] if end else [])})

    def __str__(self) -> str:
        return str(self.directory.path) + ("" if self.step is None else f"@{self.step}")


def refuse_state(text: str, command: str, remedy: str) -> None:
    """Raises where a command that is about a run gets `RUN@STEP`.

    Args:
        text: what it got.
        command: its name.
        remedy: what to do, as the end of a sentence.

    Raises:
        ValueError: in one sentence, unless a directory has this name.
    """
    run, at, step = text.rpartition("@")
    if at and step.isdecimal() and not Path(text).exists() and Path(run).exists():
        raise ValueError(f"{text} is one state, and {command} is about the run {run}: {remedy}")
