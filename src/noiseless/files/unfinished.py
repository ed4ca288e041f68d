"""The state of an analysis that was stopped before its end: a checkpoint in a folder beside the run's answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noiseless.files import checkpoint
from noiseless.files.checkpoint import State
from noiseless.lock import HeldError, locked


class Unfinished:
    """The folder of one analysis, which exists from its first saved state until its end.

    Args:
        path: of the folder.
        header: what the analysis is, plain JSON values; a state of another one is not used.
    """

    def __init__(self, path: Path, header: dict[str, Any]):
        self.path = path
        self.header: dict[str, Any] = json.loads(json.dumps(header))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context in which no other process computes this analysis.

        Yields:
            Nothing.

        Raises:
            ValueError: if another process does.
        """
        try:
            with locked(self.path.with_name(f".{self.path.name}.lock")):
                yield
        except HeldError:
            raise ValueError(f"{self.path} is being computed by another process: wait for it") from None

    def read(self) -> tuple[State | None, str]:
        """Reads the saved state.

        Returns:
            The state, None if there is none that can be used; and a sentence that says why not, without full stop,
            empty if there is no folder.
        """
        if not self.path.is_dir():
            return None, ""
        try:
            newest = checkpoint.newest(self.path)
        except ValueError as error:
            return None, str(error)
        if newest is None:
            return None, ""
        if newest.state.get("header") != json.dumps(self.header, sort_keys=True):
            return None, f"{self.path} is of another state or question"
        state: State = newest.state["state"]
        return state, ""

    def save(self, number: int, state: State) -> None:
        """Saves a state in place of the one before.

        Args:
            number: rises from state to state.
            state: nested dicts, lists and tuples of tensors, numbers, strings and None.
        """
        self.path.mkdir(exist_ok=True)
        content = {"header": json.dumps(self.header, sort_keys=True), "state": state}
        checkpoint.save(self.path, number, content, keep=1)

    def remove(self) -> None:
        """Removes the saved state."""
        shutil.rmtree(self.path, ignore_errors=True)
